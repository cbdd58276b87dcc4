// How training ends: when it is done, early, by its owner, by a number that is none, or with the device.
import type { LoraAdapter } from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { adaptedMatrices, initialAdapter, plainSpec } from './lora/adapter.ts';
import { type BaseModel, loadModel, MODEL_FILES } from './model/base-model.ts';
import { GpuModel } from './plan/gpu-model.ts';
import { StepGraph } from './plan/step.ts';
import { type TrainHooks, train } from './train.ts';

const spec = plainSpec(2, 4, ['q_proj', 'down_proj']);
const settings = {
  steps: 6,
  learningRate: 1e-2,
  schedule: 'constant',
  warmupSteps: 0,
  weightDecay: 0,
  maxGradNorm: 1,
  seed: 'seed',
} as const;
const inputIds = [1, 403, 407, 261, 378, 285, 2];
const examples = [[{ inputIds, labels: inputIds, targets: inputIds.length - 1 }]];

describe('training', () => {
  let gpu: Gpu;
  let model: BaseModel;
  let graph: StepGraph;
  let start: LoraAdapter;
  beforeAll(async () => {
    gpu = await openTestGpu();
    const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
    model = await loadModel(new Map(await Promise.all(MODEL_FILES.map(read))));
    const onGpu = await GpuModel.upload(gpu, model);
    const matrices = adaptedMatrices(model.config, spec);
    graph = await StepGraph.create(onGpu, matrices, { batch: 2, sequence: 16 }, { training: true });
    start = initialAdapter(model.config, spec, 'seed');
  });

  it('lowers the loss of what it trains on, and counts what it processed', async () => {
    const steps: number[] = [];
    const outcome = await train(graph, start, examples, settings, { onStep: ({ step }) => steps.push(step) });
    expect(steps).toEqual([1, 2, 3, 4, 5, 6]);
    expect(outcome.steps).toBe(6);
    expect(outcome.losses.at(-1)).toBeLessThan((outcome.losses[0] ?? 0) - 0.1);
    expect(outcome.targetTokens).toBe(6 * 2 * 6);
    expect(outcome.examples).toBe(12);
    expect(outcome.factors.size).toBe(10);
    for (const { a, b, rank, in: columns, out } of outcome.factors.values()) {
      expect([a.length, b.length]).toEqual([2 * columns, 2 * out]);
      expect(rank).toBe(2);
      expect(b.some((value) => value !== 0)).toBe(true);
    }
  });

  it('clips: a small norm moves the factors less', async () => {
    // Adam forgets the gradient's size but for ε, so a tiny norm shows.
    const once = { ...settings, steps: 1 };
    const moved = async (maxGradNorm: number) => {
      const { factors } = await train(graph, start, examples, { ...once, maxGradNorm });
      return Math.max(...[...factors.values()].flatMap(({ b }) => [...b].map(Math.abs)));
    };
    expect(await moved(0)).toBeGreaterThan(9e-3);
    expect(await moved(1e-9)).toBeLessThan(1e-3);
  });

  it('delivers what it has when asked to finish', async () => {
    let seen = 0;
    const hooks: TrainHooks = { onStep: ({ step }) => (seen = step), finishEarly: () => seen >= 2 };
    const { steps, losses } = await train(graph, start, examples, settings, hooks);
    expect(steps).toBeGreaterThanOrEqual(2);
    expect(steps).toBeLessThan(6);
    expect(losses).toHaveLength(steps);
  });

  it('waits while paused, and stops when aborted', async () => {
    const abort = new AbortController();
    const reason = new Error('the tab is closing');
    let paused = 0;
    const hooks: TrainHooks = {
      signal: abort.signal,
      whenRunning: async () => {
        paused += 1;
        await new Promise((resolve) => setTimeout(resolve, 5));
        if (paused === 3) abort.abort(reason);
      },
    };
    await expect(train(graph, start, examples, settings, hooks)).rejects.toBe(reason);
    expect(paused).toBe(3);
    // The graph is as good as new.
    expect((await train(graph, start, examples, { ...settings, steps: 1 })).steps).toBe(1);
  });

  it('names numbers that are not finite, and changes nothing by them', async () => {
    const matrices = new Map(
      [...start.matrices].map(([module, own]) => [module, { ...own, b: own.b.map(() => 3e38) }]),
    );
    const poisoned = { ...start, matrices };
    await expect(train(graph, poisoned, examples, settings)).rejects.toMatchObject({
      name: 'TrainerError',
      code: 'non-finite',
    });
    const kept = await graph.readFactors('params');
    for (const [module, { a, b }] of matrices) expect(kept.get(module)).toMatchObject({ a, b });
    expect((await train(graph, start, examples, { ...settings, steps: 1 })).losses[0]).toBeLessThan(20);
  });

  it('refuses an adapter of another rank', async () => {
    const other = initialAdapter(model.config, plainSpec(3, 6, ['q_proj', 'down_proj']), 'seed');
    await expect(train(graph, other, examples, settings)).rejects.toMatchObject({ code: 'rank-mismatch' });
  });

  // The last one, because it takes the device away.
  it('names a lost device', async () => {
    const hooks: TrainHooks = {
      onStep: ({ step }) => {
        if (step === 2) gpu.destroy();
      },
    };
    await expect(train(graph, start, examples, { ...settings, steps: 1000 }, hooks)).rejects.toMatchObject({
      name: 'GpuError',
      code: 'device-lost',
    });
  });
});
