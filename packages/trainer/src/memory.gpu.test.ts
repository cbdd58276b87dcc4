// Memory is what was planned, and a step in its steady state creates nothing.
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeBatch } from './data/batches.ts';
import { adaptedMatrices, factorBytes, initialAdapter, plainSpec } from './lora/adapter.ts';
import { sparseMatrices } from './lora/sparse.ts';
import { loadModel, MODEL_FILES } from './model/base-model.ts';
import { ADAMW, type Optimiser } from './optim/optimiser.ts';
import { GpuModel } from './plan/gpu-model.ts';
import type { StepOptions } from './plan/layout.ts';
import { planMemory } from './plan/memory.ts';
import { StepGraph } from './plan/step.ts';
import { chooseRank, NO_LIMITS, rankVerdicts } from './rank.ts';
import { train } from './train.ts';

let gpu: Gpu;
let model: GpuModel;
beforeAll(async () => {
  gpu = await openTestGpu();
  const files = await Promise.all(
    MODEL_FILES.map(async (file) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const),
  );
  model = await GpuModel.upload(gpu, await loadModel(new Map(files)));
});
afterAll(() => gpu.destroy());

const spec = plainSpec(8);
const shape = { batch: 8, sequence: 128 };
const tokens = Array.from({ length: 128 }, (_, i) => (i * 7 + 3) % 512);
const example = { inputIds: tokens, labels: tokens, targets: 127 };

const settings = {
  steps: 4,
  learningRate: 1e-3,
  schedule: 'constant',
  warmupSteps: 0,
  weightDecay: 0,
  maxGradNorm: 1,
  seed: 'seed',
} as const;

describe('a training step of stories260K, batch 8 × T 128', () => {
  it('takes the planned bytes, and creates nothing once it runs', async () => {
    const matrices = adaptedMatrices(model.config, spec);
    const planned = planMemory(model.config, matrices, shape);
    expect(planned.weights).toBe(model.bytes);
    const before = gpu.counters.bufferBytes;
    const graph = await StepGraph.create(model, matrices, shape, { training: true });
    expect(gpu.counters.bufferBytes - before + model.bytes).toBe(planned.total);
    expect(graph.dispatches).toBe(planned.dispatches);

    const start = initialAdapter(model.config, spec, 'seed');
    // Summed over the steps, because a machine with other work to do makes single ones longer or shorter.
    let submits = 0;
    let allowed = 0;
    let counted = { ...gpu.counters };
    let last = performance.now();
    await train(graph, start, [[example]], settings, {
      onStep: ({ step }) => {
        if (step >= 3) {
          expect(gpu.counters.buffersCreated).toBe(counted.buffersCreated);
          expect(gpu.counters.bindGroupsCreated).toBe(counted.bindGroupsCreated);
          expect(gpu.counters.pipelinesCreated).toBe(counted.pipelinesCreated);
          submits += gpu.counters.submits - counted.submits;
          allowed += 3 + Math.ceil((performance.now() - last) / 100);
        }
        counted = { ...gpu.counters };
        last = performance.now();
      },
    });
    expect(submits).toBeGreaterThan(0);
    expect(submits).toBeLessThanOrEqual(allowed);
    graph.destroy();
    expect(gpu.counters.bufferBytes).toBe(before);
  }, 120_000);

  const small = { batch: 8, sequence: 32 };
  it.each<[string, StepOptions]>([
    ['recomputed activations', { training: true, checkpoint: true }],
    ['micro-batches', { training: true, microBatch: 2 }],
    ['both', { training: true, microBatch: 1, checkpoint: true }],
    ['dropout', { training: true, dropout: 0.1 }],
    ['B trained alone', { training: true, trainable: 'B' }],
    ['a penalty on tails', { training: true, tail: { kept: 7, lambda: 0.1 } }],
    ['SGD', { training: true, optimiser: { name: 'sgd', momentum: 0 } }],
    ['SGD with momentum', { training: true, optimiser: { name: 'sgd', momentum: 0.9 } }],
    ['a limit that cuts what is wide', { training: true, slabLimit: 4 * 512 * 64 }],
  ])('takes the planned bytes with %s', async (_name, options) => {
    const matrices = adaptedMatrices(model.config, spec);
    const planned = planMemory(model.config, matrices, small, options);
    const before = gpu.counters.bufferBytes;
    const graph = await StepGraph.create(model, matrices, small, options);
    expect(gpu.counters.bufferBytes - before + model.bytes).toBe(planned.total);
    expect(graph.dispatches).toBe(planned.dispatches);
    graph.destroy();
    expect(gpu.counters.bufferBytes).toBe(before);
  });

  it('takes the planned bytes with sparse matrices', async () => {
    const matrices = sparseMatrices(model.config, { ...spec, density: 0.1, seed: 'places' });
    const planned = planMemory(model.config, matrices, small);
    expect(planned.gradients).toBe(planned.optimiser / 2);
    // Places take twice what the elements do, and the starts of the columns.
    expect(planned.adapter).toBeGreaterThan(3 * planned.gradients);
    const before = gpu.counters.bufferBytes;
    const graph = await StepGraph.create(model, matrices, small, { training: true });
    expect(gpu.counters.bufferBytes - before + model.bytes).toBe(planned.total);
    graph.destroy();
    expect(gpu.counters.bufferBytes).toBe(before);
  });

  it('gives the same bytes for the same seed', async () => {
    const small = { batch: 2, sequence: 16 };
    const rows = Array.from({ length: 5 }, (_, i) => {
      const inputIds = tokens.slice(i, i + 12);
      return [{ inputIds, labels: inputIds, targets: 11 }];
    });
    const changing = { ...settings, steps: 3, schedule: 'linear', warmupSteps: 1, weightDecay: 0.01 } as const;
    const graph = await StepGraph.create(model, adaptedMatrices(model.config, spec), small, { training: true });
    const once = await train(graph, initialAdapter(model.config, spec, 'x'), rows, changing);
    const again = await train(graph, initialAdapter(model.config, spec, 'x'), rows, changing);
    graph.destroy();
    expect(again.losses).toEqual(once.losses);
    for (const [module, { a, b }] of once.factors) {
      expect(again.factors.get(module)?.a).toEqual(a);
      expect(again.factors.get(module)?.b).toEqual(b);
    }
    const batch = makeBatch(rows.slice(0, 2), 2, 16);
    expect(batch.targetTokens).toBe(22);
  });
});

describe('choice of rank', () => {
  const question = { ranks: [2, 4, 8, 16], alphaPerRank: 2, targets: spec.targets, shape: { batch: 4, sequence: 48 } };

  it('is the largest rank where nothing forbids it', async () => {
    const verdicts = await rankVerdicts(model, question, NO_LIMITS);
    expect(verdicts.map(({ fits }) => fits)).toEqual([true, true, true, true]);
    expect(chooseRank(verdicts)).toBe(16);
    const bytes = verdicts.map(({ uploadBytes }) => uploadBytes);
    expect([...bytes].sort((a, b) => a - b)).toEqual(bytes);
  });

  it('gives way to the volunteer’s own limits, and says so', async () => {
    const all = await rankVerdicts(model, question, NO_LIMITS);
    // Below the least that any rank takes, each verdict tells the least that its rank takes.
    const least = await rankVerdicts(model, question, { ...NO_LIMITS, maxMemoryBytes: 1 });
    const leastOf = (rank: number) => least.find((verdict) => verdict.rank === rank)?.memoryBytes ?? 0;
    expect(leastOf(4)).toBeLessThan(all.find(({ rank }) => rank === 4)?.memoryBytes ?? 0);
    const tight = await rankVerdicts(model, question, { ...NO_LIMITS, maxMemoryBytes: leastOf(4) });
    expect(chooseRank(tight)).toBe(4);
    expect(tight[1]?.memoryBytes).toBe(leastOf(4));
    expect(tight[2]?.reason).toMatch(/^Rank 8 would need [\d.]+ MB; your limit is [\d.]+ MB\.$/);
    expect(chooseRank(await rankVerdicts(model, question, { ...NO_LIMITS, maxRank: 3 }))).toBe(2);
    expect(
      chooseRank(await rankVerdicts(model, question, { ...NO_LIMITS, maxUploadBytes: all[2]?.uploadBytes ?? 0 })),
    ).toBe(8);
    const none = await rankVerdicts(model, question, { ...NO_LIMITS, maxMemoryBytes: 1000 });
    expect(() => chooseRank(none)).toThrow(/No rank of this run fits/);
  });

  it('counts what the optimiser keeps', async () => {
    const bytes = async (optimiser: Optimiser) =>
      (await rankVerdicts(model, { ...question, optimiser }, NO_LIMITS)).map(({ memoryBytes }) => memoryBytes);
    const [adamw, plain] = [await bytes(ADAMW), await bytes({ name: 'sgd', momentum: 0 })];
    for (const [i, rank] of question.ranks.entries()) {
      const parameters = factorBytes(adaptedMatrices(model.config, plainSpec(rank)));
      expect((adamw[i] ?? 0) - (plain[i] ?? 0)).toBeGreaterThanOrEqual(2 * parameters);
    }
    // The room that AdamW needs for rank 8 is enough for more without moments.
    const tight = { ...NO_LIMITS, maxMemoryBytes: (adamw[2] ?? 0) - 1 };
    const way = { microBatch: 4, checkpoint: false };
    const chosen = async (optimiser: Optimiser) =>
      chooseRank(await rankVerdicts(model, { ...question, optimiser, way }, tight));
    expect([await chosen(ADAMW), await chosen({ name: 'sgd', momentum: 0 })]).toEqual([4, 8]);
  });

  it('meets a device that has no room, after trying every way to need less', async () => {
    // Attention's queries cannot be cut: one row of so many tokens is beyond a binding of 128 MiB.
    const huge = { ...question, ranks: [8], shape: { batch: 2, sequence: 600_000 } };
    const [verdict] = await rankVerdicts(model, huge, NO_LIMITS);
    expect(verdict?.fits).toBe(false);
    expect(verdict?.reason).toMatch(/beyond this GPU|no room/);
  });
});
