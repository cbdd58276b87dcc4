// What fewer bits of base weights cost: the loss of two real models on real text, and how training goes on them.
import { type DataRow, parseDataLines } from '@weft/formats';
import { type Gpu, WEIGHT_TYPES, type WeightType } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { oneExamplePerRow, sequenceFor } from './data/batches.ts';
import { type Example, encodeRows } from './data/examples.ts';
import { evaluateLoss } from './evaluate.ts';
import { adaptedMatrices, initialAdapter, plainSpec } from './lora/adapter.ts';
import { type BaseModel, loadModel, MODEL_FILES } from './model/base-model.ts';
import { GpuModel, planWeights } from './plan/gpu-model.ts';
import { StepGraph } from './plan/step.ts';
import { train } from './train.ts';

let gpu: Gpu;
let stories: DataRow[];
let task: DataRow[];
beforeAll(async () => {
  gpu = await openTestGpu({ limits: 'default' });
  const lines = async (path: string) => parseDataLines(new TextDecoder().decode(await readAsset(path)), path);
  stories = await lines('assets/texts/tinystories/stories.jsonl');
  task = await lines('assets/tasks/natural-instructions/rooms/train.jsonl');
});
afterAll(() => gpu.destroy());

const settings = {
  steps: 24,
  learningRate: 2e-3,
  schedule: 'constant',
  warmupSteps: 1,
  weightDecay: 0,
  maxGradNorm: 1,
  seed: 'seed',
} as const;

/** Mean of the last four losses: single batches differ. */
const settledLoss = (losses: readonly number[]): number => losses.slice(-4).reduce((sum, loss) => sum + loss, 0) / 4;

describe.each(['stories260K', 'babyllama-105'])('base weights of %s', (name) => {
  let model: BaseModel;
  let text: readonly Example[];
  let rows: readonly Example[];
  beforeAll(async () => {
    const read = async (file: string) => [file, await readAsset(`assets/models/${name}/${file}`)] as const;
    model = await loadModel(new Map(await Promise.all(MODEL_FILES.map(read))));
    text = encodeRows(stories.slice(0, 8), model, 128).examples;
    rows = encodeRows(task.slice(0, 32), model, 96).examples;
  });

  const measure = async (type: WeightType) => {
    const onGpu = await GpuModel.upload(gpu, model, { type });
    expect(onGpu.bytes).toBe(planWeights(model.config, type).plan.bytes);
    const { loss } = await evaluateLoss(onGpu, null, text);
    const spec = plainSpec(8);
    const shape = { batch: 4, sequence: sequenceFor(rows, 96) };
    const graph = await StepGraph.create(onGpu, adaptedMatrices(model.config, spec), shape, { training: true });
    const { losses } = await train(graph, initialAdapter(model.config, spec, 'seed'), oneExamplePerRow(rows), settings);
    graph.destroy();
    onGpu.destroy();
    return { loss, first: losses[0] ?? 0, last: settledLoss(losses) };
  };

  it('cost little in f16 and q8, and all of them train', async () => {
    const results = new Map<WeightType, Awaited<ReturnType<typeof measure>>>();
    for (const type of WEIGHT_TYPES) results.set(type, await measure(type));
    const full = results.get('f32') ?? { loss: 0, first: 0, last: 0 };
    expect(full.last).toBeLessThan(0.8 * full.first);
    const apart = (type: WeightType) => Math.abs((results.get(type)?.loss ?? 0) / full.loss - 1);
    expect(apart('f16')).toBeLessThan(1e-3);
    expect(apart('q8')).toBeLessThan(1e-2);
    // Four bits are not held to a bound: what they cost depends on the model. They must not break it.
    expect(apart('q4')).toBeLessThan(0.5);
    for (const type of ['f16', 'q8', 'q4'] as const) {
      const { last } = results.get(type) ?? { last: Number.NaN };
      expect(Math.abs(last / full.last - 1), `training on ${type}`).toBeLessThan(0.05);
    }
  });
});
