// Every family, at sizes no published model has, against the model in float64 (reference/): loss and the gradients of every
// factor, for adapters of every kind, on a device with default limits only.
import { type LoraAdapter, type ModelConfig, modelTensors, PROJECTIONS, sparseColumns } from '@weft/formats';
import { decodeWeightRows, dropout, encodeWeightRows, type Gpu, type WeightType } from '@weft/wgsl-kernels';
import { openTestGpu, runKernel } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeBatch } from './data/batches.ts';
import { Evaluator } from './evaluate.ts';
import { lossAndGradients } from './gradients.ts';
import { sparseMatrices } from './lora/sparse.ts';
import { loadModel } from './model/base-model.ts';
import { Decoder } from './plan/decoder.ts';
import { GpuModel } from './plan/gpu-model.ts';
import { StepGraph } from './plan/step.ts';
import { seededRandom } from './random.ts';
import {
  type Branch,
  type ReferenceGradients,
  type ReferenceModel,
  referenceGradients,
  referenceLogits,
} from './reference/index.ts';
import {
  ADAPTERS,
  FAMILIES,
  gradientErrors,
  type TestModel,
  testAdapter,
  testExamples,
  testModel,
  worstOf,
} from './testing/index.ts';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openTestGpu({ limits: 'default' });
});
afterAll(() => gpu.destroy());

type Found = Awaited<ReturnType<typeof lossAndGradients>>;

function expectClose(found: Found, expected: ReferenceGradients, factors: readonly ('a' | 'b')[] = ['a', 'b']): void {
  expect(Math.abs(found.loss / expected.loss - 1)).toBeLessThan(1e-5);
  const errors = gradientErrors(found.gradients, expected.gradients, factors);
  const { name, error } = worstOf(errors);
  expect(error, name).toBeLessThan(1e-3);
  expect(errors.overall).toBeLessThan(2e-4);
}

const upload = async ({ files }: TestModel, type: WeightType = 'f32') =>
  await GpuModel.upload(gpu, await loadModel(files), { type });

/** The reference with the numbers that are left of its matrices as the GPU keeps them. */
function asKept({ reference }: TestModel, model: GpuModel): ReferenceModel {
  const vectors = new Set(
    modelTensors(reference.config).flatMap(({ name, shape }) => (shape.length === 1 ? name : [])),
  );
  return {
    ...reference,
    weight: (name) => {
      const values = Float32Array.from(reference.weight(name));
      if (vectors.has(name)) return values;
      const { type, columns } = model.matrix(name);
      return decodeWeightRows(type, encodeWeightRows(type, values, columns), columns);
    },
  };
}

/** Seeded elements at seeded places of all matrices. */
function sparseAdapter(config: ModelConfig, density: number) {
  const spec = { density, seed: 'places' };
  const random = seededRandom('values');
  const matrices = sparseMatrices(config, { ...spec, targets: PROJECTIONS }).map((matrix) => {
    const b = Float32Array.from({ length: matrix.out * matrix.rank }, () => 0.2 * random.uniform() - 0.1);
    return { ...matrix, a: new Float32Array(0), b, columns: sparseColumns(spec, matrix) };
  });
  return { baseModel: '', rslora: false, matrices: new Map(matrices.map((own) => [own.module, own])) };
}

describe.each(FAMILIES)('$name', (family) => {
  const test = testModel(family);
  const examples = testExamples(family.config.vocabSize);
  let model: GpuModel;
  beforeAll(async () => {
    model = await upload(test);
  });
  afterAll(() => model.destroy());

  it.each(Object.entries(ADAPTERS[family.name] ?? {}))('has the gradients of its loss: %s', async (_name, spec) => {
    const adapter = testAdapter(family.config, spec);
    expectClose(
      await lossAndGradients(model, adapter, examples),
      referenceGradients(test.reference, adapter, examples),
    );
  });

  it('has the gradients of a sparse update', async () => {
    const adapter = sparseAdapter(family.config, 0.1);
    const found = await lossAndGradients(model, adapter, examples);
    expectClose(found, referenceGradients(test.reference, adapter, examples), ['b']);
  });

  it.each(['f16', 'q8', 'q4'] as const)('has the gradients of what is left of its weights in %s', async (type) => {
    const spec = Object.values(ADAPTERS[family.name] ?? {})[0];
    if (!spec) throw new Error(`${family.name} has no adapter.`);
    const small = await upload(test, type);
    const adapter = testAdapter(family.config, spec);
    const found = await lossAndGradients(small, adapter, examples);
    expectClose(found, referenceGradients(asKept(test, small), adapter, examples));
    small.destroy();
  });
});

// Windows on some layers, biases, patterns: what goes wrong elsewhere goes wrong here too.
describe('a step', () => {
  const family = FAMILIES.find(({ name }) => name === 'qwen2-window');
  const spec = ADAPTERS['qwen2-window']?.['ranks by layer'];
  if (!family || !spec) throw new Error('The family or its adapter is gone.');
  const test = testModel(family);
  const examples = testExamples(family.config.vocabSize);
  const adapter = testAdapter(family.config, spec);
  let model: GpuModel;
  beforeAll(async () => {
    model = await upload(test);
  });
  afterAll(() => model.destroy());

  it.each([{ microBatch: 2 }, { checkpoint: true }, { microBatch: 1, checkpoint: true }])(
    'has the same gradients with %j',
    async (options) => {
      expectClose(
        await lossAndGradients(model, adapter, examples, options),
        referenceGradients(test.reference, adapter, examples),
      );
    },
  );

  it.each([
    [0.01, {}],
    [0.3, { microBatch: 2 }],
    [1, { checkpoint: true }],
  ])('has the gradients of a sparse update of density %f, with %j', async (density, options) => {
    const sparse = sparseAdapter(family.config, density);
    const found = await lossAndGradients(model, sparse, examples, options);
    expectClose(found, referenceGradients(test.reference, sparse, examples), ['b']);
  });

  it('evaluates and decodes with a sparse update', async () => {
    const sparse = sparseAdapter(family.config, 0.3);
    const evaluator = await Evaluator.create(model, sparse, examples);
    const { loss } = await evaluator.loss(examples);
    evaluator.destroy();
    const expected = referenceGradients(test.reference, sparse, examples).loss;
    expect(Math.abs(loss / expected - 1)).toBeLessThan(1e-5);
    const ids = examples[0]?.inputIds ?? [];
    const decoder = await Decoder.create(model, ids.length, sparse);
    const logits = await decoder.extend(ids);
    decoder.destroy();
    const all = referenceLogits(test.reference, sparse, ids);
    const last = all.subarray(all.length - family.config.vocabSize);
    expect(Math.max(...logits.map((value, i) => Math.abs(value - (last[i] ?? Number.NaN))))).toBeLessThan(1e-4);
  });

  it.each([
    { trainable: 'A', trained: 'a', frozen: 'b' },
    { trainable: 'B', trained: 'b', frozen: 'a' },
  ] as const)(
    'has gradients of $trainable alone, where that alone is trained',
    async ({ trainable, trained, frozen }) => {
      const found = await lossAndGradients(model, adapter, examples, { trainable });
      expectClose(found, referenceGradients(test.reference, adapter, examples), [trained]);
      for (const factors of found.gradients.values()) expect(factors[frozen].every((value) => value === 0)).toBe(true);
    },
  );

  it('adds frozen adapters beside the one in training', async () => {
    const targets = ['k_proj', 'o_proj', 'down_proj'] as const;
    const frozen = [
      testAdapter(family.config, { ...spec, rankPattern: {}, rank: 3, alpha: -2 }),
      testAdapter(family.config, { ...spec, targets, rank: 1, alpha: 0.7, firstLayer: 1 }),
    ];
    const sides = new Map<string, Branch[]>();
    for (const { matrices } of frozen)
      for (const own of matrices.values()) sides.set(own.module, [...(sides.get(own.module) ?? []), own]);
    const expected = referenceGradients({ ...test.reference, sides }, adapter, examples);
    const bare = referenceGradients(test.reference, adapter, examples);
    expect(Math.abs(expected.loss / bare.loss - 1)).toBeGreaterThan(1e-3);
    const options = { sides: frozen.map(({ matrices }) => [...matrices.values()]) };
    expectClose(await lossAndGradients(model, adapter, examples, options), expected);
    // Beside a sparse update too.
    const sparse = sparseAdapter(family.config, 0.1);
    const besideSparse = referenceGradients({ ...test.reference, sides }, sparse, examples);
    expectClose(await lossAndGradients(model, sparse, examples, options), besideSparse, ['b']);
  });

  it('keeps the examples of a row apart', async () => {
    const rows = [[examples[1], examples[3]], [examples[2], examples[4], examples[5]], [examples[0]]].map((row) =>
      row.filter((example) => example !== undefined),
    );
    expectClose(await packed(model, adapter, rows), referenceGradients(test.reference, adapter, examples));
  });

  it.each([false, true])('drops the same elements forward and backward; recomputed: %s', async (checkpoint) => {
    const [rate, dropoutSeed, microBatch] = [0.3, 5, 3];
    const sequence = Math.max(...examples.map(({ inputIds }) => inputIds.length));
    const shape = { batch: examples.length, sequence };
    const matrices = [...adapter.matrices.values()];
    const options = { training: true, update: false, dropout: rate, microBatch, checkpoint };
    const graph = await StepGraph.create(model, matrices, shape, options);
    graph.loadAdapter(adapter);
    const batches = [examples.slice(0, microBatch), examples.slice(microBatch)].map((part) =>
      makeBatch(
        part.map((example) => [example]),
        microBatch,
        sequence,
      ),
    );
    const unused = { learningRate: 0, weightDecay: 0, step: 1, maxGradNorm: 0 };
    const { loss } = await graph.run(batches, { ...unused, dropoutSeed });
    const found = { loss, gradients: await graph.readFactors('grads') };
    graph.destroy();

    // What the kernel leaves of ones is its mask. Matrices differ by their salt, micro-batches by the second seed.
    const masks = new Map<string, Float32Array[]>();
    for (const [salt, { module, in: columns }] of matrices.entries()) {
      const of = async (index: number) => {
        const x = { shape: [microBatch * sequence, columns], data: new Float32Array(microBatch * sequence * columns) };
        x.data.fill(1);
        const seed = { shape: [2], data: Uint32Array.of(dropoutSeed, index) };
        const out = { shape: x.shape, written: true };
        const calls = (tensors: Parameters<typeof dropout>[0]) => dropout(tensors, { rate, salt, accumulate: false });
        return (await runKernel(gpu, { x, seed, out }, calls)).out;
      };
      masks.set(module, [await of(0), await of(1)]);
    }
    const maskOf = (module: string, example: number): Float32Array => {
      const columns = adapter.matrices.get(module)?.in ?? 0;
      const first = (example % microBatch) * sequence * columns;
      const length = (examples[example]?.inputIds.length ?? 0) * columns;
      const mask = masks.get(module)?.[Math.floor(example / microBatch)] ?? new Float32Array();
      return mask.subarray(first, first + length);
    };
    const expected = referenceGradients(test.reference, adapter, examples, maskOf);
    const bare = referenceGradients(test.reference, adapter, examples);
    expect(Math.abs(expected.loss / bare.loss - 1)).toBeGreaterThan(1e-3);
    expectClose(found, expected);
  });
});

/** Loss and gradients of rows that hold several examples each. */
async function packed(model: GpuModel, adapter: LoraAdapter, rows: Parameters<typeof makeBatch>[0]): Promise<Found> {
  const sequence = Math.max(...rows.map((row) => row.reduce((sum, { inputIds }) => sum + inputIds.length, 0)));
  const shape = { batch: rows.length, sequence };
  const graph = await StepGraph.create(model, [...adapter.matrices.values()], shape, { training: true, update: false });
  graph.loadAdapter(adapter);
  const { loss } = await graph.run([makeBatch(rows, rows.length, sequence)]);
  const gradients = await graph.readFactors('grads');
  graph.destroy();
  return { loss, gradients };
}
