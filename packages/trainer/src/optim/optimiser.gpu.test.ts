// Several steps of a whole model by SGD, against the model (reference/) and the rule, both in float64: clipping by the norm
// of all factors together, coupled weight decay, momentum.
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { oneExamplePerRow } from '../data/batches.ts';
import { loadModel } from '../model/base-model.ts';
import { GpuModel } from '../plan/gpu-model.ts';
import { StepGraph } from '../plan/step.ts';
import { type Branch, referenceGradients } from '../reference/index.ts';
import { ADAPTERS, FAMILIES, gradientErrors, testAdapter, testExamples, testModel } from '../testing/index.ts';
import { train } from '../train.ts';

const family = FAMILIES.find(({ name }) => name === 'qwen2-window');
const spec = ADAPTERS['qwen2-window']?.['ranks by layer'];
if (!family || !spec) throw new Error('The family or its adapter is gone.');
const test = testModel(family);
const examples = testExamples(family.config.vocabSize);
const adapter = testAdapter(family.config, spec);

const settings = {
  steps: 5,
  learningRate: 0.2,
  schedule: 'linear',
  warmupSteps: 1,
  weightDecay: 0.05,
  maxGradNorm: 0.5,
  seed: 'seed',
} as const;
/** Of {@link settings}: one step of warm-up, then a line to zero. */
const RATES = [0.1, 0.2, 0.15, 0.1, 0.05];

type Factors = Map<string, Branch & { a: Float64Array; b: Float64Array }>;

/** The same steps in float64, all examples in every batch, and their losses. */
function referenceSteps({
  momentum,
  maxGradNorm,
  weightDecay,
}: Record<'momentum' | 'maxGradNorm' | 'weightDecay', number>) {
  const factors: Factors = new Map(
    [...adapter.matrices].map(([module, own]) => [
      module,
      { ...own, a: Float64Array.from(own.a), b: Float64Array.from(own.b) },
    ]),
  );
  const velocity = new Map(
    [...factors].map(([module, { a, b }]) => [module, { a: a.map(() => 0), b: b.map(() => 0) }]),
  );
  const [losses, norms]: [number[], number[]] = [[], []];
  for (const rate of RATES) {
    const { loss, gradients } = referenceGradients(test.reference, { matrices: factors }, examples);
    const all = [...gradients.values()].flatMap(({ a, b }) => [...a, ...b]);
    const norm = Math.hypot(...all);
    const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / norm) : 1;
    losses.push(loss);
    norms.push(norm);
    for (const [module, own] of factors) {
      for (const factor of ['a', 'b'] as const) {
        const [values, gradient, kept] = [own[factor], gradients.get(module)?.[factor], velocity.get(module)?.[factor]];
        for (let i = 0; i < values.length; i += 1) {
          const value = values[i] ?? Number.NaN;
          const next =
            momentum * (kept?.[i] ?? Number.NaN) + clip * (gradient?.[i] ?? Number.NaN) + weightDecay * value;
          if (kept) kept[i] = next;
          values[i] = value - rate * next;
        }
      }
    }
  }
  return { losses, norms, factors };
}

describe('SGD on a whole model', () => {
  let gpu: Gpu;
  let model: GpuModel;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    model = await GpuModel.upload(gpu, await loadModel(test.files), { type: 'f32' });
  });
  afterAll(() => gpu.destroy());

  it.each([
    { momentum: 0, maxGradNorm: 0.5, weightDecay: 0.05 },
    { momentum: 0.9, maxGradNorm: 0.5, weightDecay: 0.05 },
    { momentum: 0, maxGradNorm: 0, weightDecay: 0 },
  ])('takes the steps it takes in float64: %j', async ({ momentum, ...changed }) => {
    const shape = { batch: examples.length, sequence: Math.max(...examples.map(({ inputIds }) => inputIds.length)) };
    const graph = await StepGraph.create(model, [...adapter.matrices.values()], shape, {
      training: true,
      microBatch: 3,
      optimiser: { name: 'sgd', momentum },
    });
    const norms: number[] = [];
    const outcome = await train(
      graph,
      adapter,
      oneExamplePerRow(examples),
      { ...settings, ...changed },
      {
        onStep: ({ gradientNorm }) => norms.push(gradientNorm),
      },
    );
    graph.destroy();
    const expected = referenceSteps({ momentum, ...changed });
    // The test means something where clipping bites, and where steps change the loss.
    if (changed.maxGradNorm > 0) expect(Math.min(...expected.norms)).toBeGreaterThan(changed.maxGradNorm);
    expect(Math.abs((expected.losses.at(-1) ?? 0) - (expected.losses[0] ?? 0))).toBeGreaterThan(0.01);
    for (const [i, loss] of expected.losses.entries()) {
      expect(Math.abs((outcome.losses[i] ?? Number.NaN) / loss - 1), `loss ${i}`).toBeLessThan(1e-5);
      expect(Math.abs((norms[i] ?? Number.NaN) / (expected.norms[i] ?? 0) - 1), `norm ${i}`).toBeLessThan(1e-4);
    }
    // What was learnt, not what it began with, is compared.
    const learnt = (found: ReadonlyMap<string, { a: ArrayLike<number>; b: ArrayLike<number> }>) =>
      new Map(
        [...adapter.matrices].map(([module, start]) => {
          const own = found.get(module);
          const change = (factor: 'a' | 'b') =>
            Float64Array.from(start[factor], (value, i) => (own?.[factor][i] ?? Number.NaN) - value);
          return [module, { a: change('a'), b: change('b') }];
        }),
      );
    const { overall } = gradientErrors(learnt(outcome.factors), learnt(expected.factors));
    expect(overall).toBeLessThan(2e-4);
  });
});
