// Every way to run a step gives the same numbers: recomputed activations, micro-batches, packed rows, frozen factors and
// side adapters, and a snapshot in the middle.
import { type LoraAdapter, type LoraFactors, readSafetensors } from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeBatch, oneExamplePerRow } from '../data/batches.ts';
import { packExamples } from '../data/packing.ts';
import { evaluateLoss } from '../evaluate.ts';
import { type LossAndGradients, lossAndGradients } from '../gradients.ts';
import { initialAdapter, plainSpec } from '../lora/adapter.ts';
import { loadModel, MODEL_FILES } from '../model/base-model.ts';
import { ADAMW, type Optimiser } from '../optim/optimiser.ts';
import { seededRandom } from '../random.ts';
import { readSnapshot, type TrainSnapshot, writeSnapshot } from '../snapshot.ts';
import { train } from '../train.ts';
import { trainThroughLoss } from '../train-through-loss.ts';
import { GpuModel } from './gpu-model.ts';
import { StepGraph } from './step.ts';

let gpu: Gpu;
let model: GpuModel;
let files: ReadonlyMap<string, Uint8Array>;
beforeAll(async () => {
  gpu = await openTestGpu({ limits: 'default' });
  const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
  files = new Map(await Promise.all(MODEL_FILES.map(read)));
  model = await GpuModel.upload(gpu, await loadModel(files));
});
afterAll(() => gpu.destroy());

/** An adapter whose B is not zero, so that everything has a gradient. */
function adapterOf(rank: number, seed: string): LoraAdapter {
  const start = initialAdapter(model.config, plainSpec(rank), seed);
  const random = seededRandom(seed, 'b');
  const matrices = [...start.matrices].map(([module, own]): [string, LoraFactors] => [
    module,
    { ...own, b: own.b.map(() => 0.1 * (random.uniform() - 0.5)) },
  ]);
  return { ...start, matrices: new Map(matrices) };
}

const examples = [11, 5, 16, 8].map((length, row) => {
  const inputIds = Array.from({ length }, (_, i) => 3 + ((31 * row + 7 * i * i + i) % 500));
  return { inputIds, labels: inputIds.map((id, i) => (i < row ? -100 : id)), targets: length - Math.max(1, row) };
});
const settings = {
  steps: 6,
  learningRate: 5e-3,
  schedule: 'cosine',
  warmupSteps: 1,
  weightDecay: 0.01,
  maxGradNorm: 1,
  seed: 'seed',
} as const;

const flat = ({ gradients }: LossAndGradients): number[] => [...gradients.values()].flatMap(({ a, b }) => [...a, ...b]);

/** ‖x − y‖ / ‖y‖ */
const distance = (x: readonly number[], y: readonly number[]): number =>
  Math.hypot(...x.map((value, i) => value - (y[i] ?? Number.NaN))) / Math.hypot(...y);

describe('a step', () => {
  it('gives the same gradients from recomputed activations and from micro-batches', async () => {
    const adapter = adapterOf(4, 'a');
    const plain = await lossAndGradients(model, adapter, examples);
    const recomputed = await lossAndGradients(model, adapter, examples, { checkpoint: true });
    expect(recomputed.loss).toBe(plain.loss);
    expect(flat(recomputed)).toEqual(flat(plain));
    for (const microBatch of [2, 1]) {
      const parts = await lossAndGradients(model, adapter, examples, { microBatch, checkpoint: microBatch === 1 });
      expect(Math.abs(parts.loss / plain.loss - 1)).toBeLessThan(1e-6);
      expect(distance(flat(parts), flat(plain))).toBeLessThan(1e-6);
    }
  });

  it('gives the same gradients where wide tensors are cut by rows', async () => {
    const adapter = adapterOf(4, 'a');
    const long = Array.from({ length: 8 }, (_, row) => {
      const inputIds = Array.from({ length: 32 }, (_, i) => 3 + ((17 * row + 5 * i) % 500));
      return { inputIds, labels: inputIds, targets: 31 };
    });
    const shape = { batch: 8, sequence: 32 };
    const batch = makeBatch(oneExamplePerRow(long), 8, 32);
    const gradients = async (slabLimit?: number) => {
      const options = { training: true, ...(slabLimit === undefined ? {} : { slabLimit }) };
      const graph = await StepGraph.create(model, [...adapter.matrices.values()], shape, options);
      graph.loadAdapter(adapter);
      const { loss } = await graph.run([batch]);
      const result = { loss, gradients: await graph.readFactors('grads') };
      graph.destroy();
      return result;
    };
    const [whole, cut] = [await gradients(), await gradients(4 * 512 * 64)];
    expect(cut.loss).toBe(whole.loss);
    expect(distance(flat(cut), flat(whole))).toBeLessThan(1e-6);
  });

  it('keeps packed examples apart', async () => {
    const adapter = adapterOf(2, 'a');
    const packed = packExamples(examples, 24);
    expect(packed.length).toBeLessThan(examples.length);
    const shape = { batch: packed.length, sequence: 24 };
    const graph = await StepGraph.create(model, [...adapter.matrices.values()], shape, {
      training: true,
      update: false,
    });
    graph.loadAdapter(adapter);
    const { loss } = await graph.run([makeBatch(packed, packed.length, 24)]);
    const together = { loss, gradients: await graph.readFactors('grads') };
    graph.destroy();
    const apart = await lossAndGradients(model, adapter, examples);
    expect(Math.abs(together.loss / apart.loss - 1)).toBeLessThan(1e-6);
    expect(distance(flat(together), flat(apart))).toBeLessThan(1e-6);
  });

  it('adds the gradients of a penalty on tails, once a step', async () => {
    const adapter = adapterOf(4, 'a');
    const [kept, lambda] = [3, 0.25];
    const plain = await lossAndGradients(model, adapter, examples);
    const penalised = await lossAndGradients(model, adapter, examples, { tail: { kept, lambda }, microBatch: 2 });
    expect(Math.abs(penalised.loss / plain.loss - 1)).toBeLessThan(1e-6);
    for (const [module, own] of adapter.matrices) {
      const ofTail = (values: Float32Array, isTail: (i: number) => boolean) =>
        values.map((value, i) => (isTail(i) ? value : 0));
      const a = ofTail(own.a, (i) => i >= kept * own.in);
      const b = ofTail(own.b, (i) => i % own.rank >= kept);
      const [ofA, ofB] = [Math.hypot(...a), Math.hypot(...b)];
      const expected = {
        a: [...a].map((value, i) => (lambda * ofB * value) / ofA + (plain.gradients.get(module)?.a[i] ?? 0)),
        b: [...b].map((value, i) => (lambda * ofA * value) / ofB + (plain.gradients.get(module)?.b[i] ?? 0)),
      };
      for (const factor of ['a', 'b'] as const) {
        const found = [...(penalised.gradients.get(module)?.[factor] ?? [])];
        expect(distance(found, expected[factor]), `${module} ${factor}`).toBeLessThan(1e-5);
      }
    }
    await expect(
      lossAndGradients(model, adapter, examples, { tail: { kept, lambda }, trainable: 'B' }),
    ).rejects.toMatchObject({ code: 'bad-settings' });
  });

  it.each(['A', 'B'] as const)('trains %s alone', async (trainable) => {
    const adapter = adapterOf(2, 'a');
    const matrices = [...adapter.matrices.values()];
    const graph = await StepGraph.create(model, matrices, { batch: 4, sequence: 16 }, { training: true, trainable });
    const { factors, losses } = await train(graph, adapter, oneExamplePerRow(examples), settings);
    graph.destroy();
    expect(losses.at(-1)).toBeLessThan(losses[0] ?? 0);
    const [frozen, trained] = trainable === 'A' ? (['b', 'a'] as const) : (['a', 'b'] as const);
    for (const [module, own] of adapter.matrices) {
      expect(factors.get(module)?.[frozen]).toEqual(own[frozen]);
      expect(factors.get(module)?.[trained]).not.toEqual(own[trained]);
    }
    const both = await lossAndGradients(model, adapter, examples);
    const one = await lossAndGradients(model, adapter, examples, { trainable });
    for (const [module, own] of both.gradients) {
      expect(one.gradients.get(module)?.[trained]).toEqual(own[trained]);
      expect(one.gradients.get(module)?.[frozen].every((value) => value === 0)).toBe(true);
    }
  });

  it('adds frozen side adapters', async () => {
    const [own, side] = [adapterOf(2, 'own'), adapterOf(3, 'side')];
    const nothing = initialAdapter(model.config, plainSpec(1), 'nothing');
    const sides = [[...side.matrices.values()]];
    const beside = await lossAndGradients(model, nothing, examples, { sides });
    const { loss: alone } = await evaluateLoss(model, side, examples);
    expect(Math.abs(beside.loss / alone - 1)).toBeLessThan(1e-6);
    // ΔW of both together is that of one adapter of rank 5 with the factors side by side; its gradients are theirs.
    const joined = new Map(
      [...own.matrices].map(([module, { a, b, rank, in: columns, out, scale }]) => {
        const other = side.matrices.get(module);
        const [total, wide] = [rank + (other?.rank ?? 0), new Float32Array(out * (rank + (other?.rank ?? 0)))];
        for (let row = 0; row < out; row += 1) {
          wide.set(b.subarray(row * rank, (row + 1) * rank), row * total);
          wide.set(other?.b.subarray(row * (total - rank), (row + 1) * (total - rank)) ?? [], row * total + rank);
        }
        const factors = { module, rank: total, in: columns, out, scale, alpha: scale * total };
        return [module, { ...factors, a: Float32Array.of(...a, ...(other?.a ?? [])), b: wide }];
      }),
    );
    const both = await lossAndGradients(model, own, examples, { sides });
    const reference = await lossAndGradients(model, { ...own, matrices: joined }, examples);
    expect(Math.abs(both.loss / reference.loss - 1)).toBeLessThan(1e-6);
    for (const [module, { a }] of both.gradients) {
      const expected = [...(reference.gradients.get(module)?.a.subarray(0, a.length) ?? [])];
      expect(distance([...a], expected), module).toBeLessThan(1e-4);
    }
  });

  it('drops the inputs of A while training, by masks that the seed decides', async () => {
    const adapter = adapterOf(4, 'a');
    const matrices = [...adapter.matrices.values()];
    const options = { training: true, dropout: 0.5 };
    const graph = await StepGraph.create(model, matrices, { batch: 4, sequence: 16 }, options);
    const run = (seed: string) => train(graph, adapter, oneExamplePerRow(examples), { ...settings, seed });
    const first = await run('one');
    expect((await run('one')).losses).toEqual(first.losses);
    const masks = await Promise.resolve(run('two'));
    expect(masks.losses).not.toEqual(first.losses);
    graph.destroy();
    const { loss } = await evaluateLoss(model, adapter, examples);
    expect(first.losses[0]).not.toBeCloseTo(loss, 3);
  });
});

describe('a snapshot', () => {
  const rows = oneExamplePerRow(examples);
  const shape = { batch: 2, sequence: 16 };

  const SGD = { name: 'sgd', momentum: 0 } as const;
  it.each<[string, Optimiser, number]>([
    ['AdamW', ADAMW, 3],
    ['SGD', SGD, 1],
    ['SGD with momentum', { ...SGD, momentum: 0.9 }, 2],
  ])('continues as if training had never stopped, also through its file: %s', async (_name, optimiser, vectors) => {
    const adapter = adapterOf(3, 'a');
    const graph = await StepGraph.create(model, [...adapter.matrices.values()], shape, {
      training: true,
      dropout: 0.1,
      optimiser,
    });
    const snapshots: TrainSnapshot[] = [];
    const onSnapshot = (snapshot: TrainSnapshot) => void snapshots.push(snapshot);
    const whole = await train(graph, adapter, rows, settings);
    const watched = await train(graph, adapter, rows, settings, { snapshotMs: 0, onSnapshot });
    expect(watched.losses).toEqual(whole.losses);
    expect(snapshots.length).toBeGreaterThan(2);
    for (const snapshot of snapshots) {
      const file = readSafetensors(writeSnapshot(snapshot));
      expect(file.tensors.size).toBe(vectors * 2 * adapter.matrices.size);
      const resumed = await train(graph, readSnapshot(writeSnapshot(snapshot)), rows, settings);
      expect(resumed).toMatchObject({ losses: whole.losses, steps: whole.steps, targetTokens: whole.targetTokens });
      expect([...resumed.factors]).toEqual([...whole.factors]);
    }
    graph.destroy();
  });

  it('of another optimiser is refused', async () => {
    const adapter = adapterOf(2, 'a');
    const graphOf = (optimiser: Optimiser) =>
      StepGraph.create(model, [...adapter.matrices.values()], shape, { training: true, optimiser });
    const [adamw, plain] = [await graphOf(ADAMW), await graphOf(SGD)];
    const snapshots: TrainSnapshot[] = [];
    const onSnapshot = (snapshot: TrainSnapshot) => void snapshots.push(snapshot);
    await train(adamw, adapter, rows, settings, { snapshotMs: 0, onSnapshot });
    await train(plain, adapter, rows, settings, { snapshotMs: 0, onSnapshot });
    for (const [graph, snapshot] of [
      [plain, snapshots[0]],
      [adamw, snapshots.at(-1)],
    ] as const) {
      if (!snapshot) throw new Error('No snapshot was taken.');
      await expect(train(graph, snapshot, rows, settings)).rejects.toMatchObject({ code: 'bad-snapshot' });
      graph.destroy();
    }
  });

  it('names files that are none', () => {
    expect(() => readSnapshot(new Uint8Array(4))).toThrow(expect.objectContaining({ code: 'safetensors-truncated' }));
  });

  it('carries training over lost devices', async () => {
    const adapter = adapterOf(3, 'a');
    const matrices = [...adapter.matrices.values()];
    const graph = await StepGraph.create(model, matrices, shape, { training: true });
    const whole = await train(graph, adapter, rows, settings);
    graph.destroy();

    const devices: Gpu[] = [];
    const lostAt = [2, 5];
    const lost: string[] = [];
    const makeGraph = async () => {
      const device = await openTestGpu();
      devices.push(device);
      const onDevice = await GpuModel.upload(device, await loadModel(files));
      return await StepGraph.create(onDevice, matrices, shape, { training: true });
    };
    const outcome = await trainThroughLoss(makeGraph, adapter, rows, settings, {
      snapshotMs: 0,
      onStep({ step }) {
        if (step !== lostAt[0]) return;
        lostAt.shift();
        devices.at(-1)?.device.destroy();
      },
      onLost: ({ code }) => void lost.push(code),
    });
    expect(lost).toEqual(['device-lost', 'device-lost']);
    expect(devices).toHaveLength(3);
    expect(outcome.losses).toEqual(whole.losses);
    expect([...outcome.factors]).toEqual([...whole.factors]);
    for (const device of devices) device.destroy();
  });
});
