// A profile of a real step: every kernel of it is there, and the step's figures agree with each other.
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { adaptedMatrices, plainSpec } from '../lora/adapter.ts';
import { loadModel, MODEL_FILES } from '../model/base-model.ts';
import { GpuModel } from './gpu-model.ts';
import { profileStep } from './profile.ts';
import { StepGraph } from './step.ts';

let gpu: Gpu;
let model: GpuModel;
beforeAll(async () => {
  gpu = await openTestGpu();
  const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
  model = await GpuModel.upload(gpu, await loadModel(new Map(await Promise.all(MODEL_FILES.map(read)))));
});
afterAll(() => gpu.destroy());

const peaks = { gflops: 10, f16Gflops: null, gigabytes: 5, loadGigabytes: 10, gigaexps: 1, sweep: [] };

it.each([[4], [2]])('names every kernel and sums the step up, %i rows at a time', async (microBatch) => {
  const spec = plainSpec(4);
  const shape = { batch: 4, sequence: 32 };
  const matrices = adaptedMatrices(model.config, spec);
  const graph = await StepGraph.create(model, matrices, shape, { training: true, microBatch });
  expect(graph.isMeasured).toBe(false);
  const { step, flops, kernels } = await profileStep(model, graph, spec, peaks);
  expect(graph.isMeasured).toBe(true);
  const { layout } = graph;
  const calls = layout.micro.length * (4 / microBatch) + layout.update.length;
  expect(kernels.kernels.reduce((sum, kernel) => sum + kernel.calls, 0)).toBe(calls);
  expect(new Set(kernels.kernels.map(({ name }) => name))).toEqual(
    new Set([...layout.micro, ...layout.update].map(({ name }) => name)),
  );
  // Longer calls are in pieces on a slow device.
  expect(step.dispatches).toBeGreaterThanOrEqual(calls);
  expect(step.submits).toBeGreaterThanOrEqual(2);
  expect(step.tokensPerSecond).toBeCloseTo((1000 * 4 * 32) / step.milliseconds, 6);
  expect(step.mfu).toBeCloseTo(flops.total / (peaks.gflops * 1e6 * step.milliseconds), 9);
  expect(step.encodeMilliseconds).toBeGreaterThan(0);
  expect(step.encodeMilliseconds).toBeLessThanOrEqual(step.milliseconds);
  graph.destroy();
});
