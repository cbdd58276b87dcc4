// The trainer as a session uses it: ranks are really mixed, rounds really go on from what was handed out.
import {
  type ModelConfig,
  parseModelConfig,
  readFactors,
  readSafetensors,
  readSparse,
  sparseBytes,
  writeFactors,
} from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLocalTrainer, type LocalTrainer } from './local-trainer.ts';
import { initialAdapter, plainSpec } from './lora/adapter.ts';
import { sparseMatrices, writeSparseFactors } from './lora/sparse.ts';
import { MODEL_FILES } from './model/base-model.ts';
import { NO_LIMITS } from './rank.ts';

const targets = ['q_proj', 'v_proj', 'up_proj'] as const;
const training = {
  steps: 4,
  batchSize: 2,
  sequenceLength: 48,
  baseDtype: 'f32',
  learningRate: 1e-2,
  schedule: 'constant',
  warmupSteps: 0,
  weightDecay: 0,
  maxGradNorm: 1,
  seed: 'seed',
} as const;
const rows = [
  { prompt: 'closet : bedroom. crib : ?\nAnswer:', completion: 'nursery' },
  { prompt: 'car : garage. shed : ?\nAnswer:', completion: 'garden' },
  { prompt: `long ${'and longer '.repeat(20)}\nAnswer:`, completion: 'kitchen' },
]
  .map((row) => JSON.stringify(row))
  .join('\n');

describe('local trainer', () => {
  let gpu: Gpu;
  let trainer: LocalTrainer;
  let files: ReadonlyMap<string, Uint8Array>;
  let config: ModelConfig;
  beforeAll(async () => {
    gpu = await openTestGpu();
    trainer = createLocalTrainer(gpu, { deviceMemoryGiB: null });
    const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
    files = new Map(await Promise.all(MODEL_FILES.map(read)));
    config = parseModelConfig(new TextDecoder().decode(files.get('config.json')));
  });
  afterAll(() => trainer.close());

  const control = (onStep: () => void = () => undefined) => ({
    signal: new AbortController().signal,
    whenRunning: () => Promise.resolve(),
    finishEarly: () => false,
    onStep,
  });
  const startOf = (rank: number) =>
    writeFactors(initialAdapter(config, plainSpec(rank, 2 * rank, targets), 'seed').matrices.values());
  const jobOf = (rank: number, start = startOf(rank)) => ({
    grant: { rank, alpha: 2 * rank, rankPattern: {}, alphaPattern: {}, targets },
    training,
    start,
    rows,
  });

  it('reports the device', () => {
    expect(trainer.device()).toMatchObject({ adapter: gpu.adapter, deviceMemoryGiB: null });
    expect(trainer.device().limits.maxBufferSize).toBeGreaterThan(1e6);
  });

  it('trains at the granted rank, so that uploads of different ranks differ in size', async () => {
    const sizes: number[] = [];
    for (const rank of [1, 3, 8]) {
      let steps = 0;
      const { update, ...result } = await trainer.train(
        files,
        jobOf(rank),
        control(() => (steps += 1)),
      );
      expect(result).toMatchObject({ steps: 4, examples: 8, truncatedRows: 1 });
      expect(steps).toBe(4);
      expect(result.lastLoss).toBeLessThan(result.firstLoss);
      const { tensors } = readSafetensors(update);
      expect([...tensors.keys()].sort()).toEqual([...readSafetensors(startOf(rank)).tensors.keys()].sort());
      expect(tensors.size).toBe(2 * targets.length * 5);
      for (const [name, { shape, dtype }] of tensors) {
        expect(dtype).toBe('F32');
        expect(shape[name.includes('lora_A') ? 0 : 1], name).toBe(rank);
      }
      sizes.push(update.length);
    }
    expect(sizes[1]).toBeGreaterThan((sizes[0] ?? 0) * 2);
    expect(sizes[2]).toBeGreaterThan((sizes[1] ?? 0) * 2);
  });

  it('trains B alone where it is told to: A comes back to the byte', async () => {
    const spec = { ...jobOf(4).grant, rslora: false };
    const start = readFactors(startOf(4), spec);
    const job = { ...jobOf(4), training: { ...training, trainable: 'B' as const } };
    const { update, firstLoss, lastLoss } = await trainer.train(files, job, control());
    expect(lastLoss).toBeLessThan(firstLoss);
    for (const [module, { a, b }] of readFactors(update, spec)) {
      expect(a, module).toEqual(start.get(module)?.a);
      expect(b, module).not.toEqual(start.get(module)?.b);
    }
    // The next job, of the same shape, trains both.
    const both = readFactors((await trainer.train(files, jobOf(4), control())).update, spec);
    for (const [module, { a }] of both) expect(a, module).not.toEqual(start.get(module)?.a);
  });

  it('trains beside a frozen adapter, whatever its ranks, without changing it', async () => {
    const spec = { ...jobOf(4).grant, rslora: false };
    const { update: other } = await trainer.train(files, jobOf(4), control());
    // At scale 1, as sides are: B twice as large as at the scale 2 it was trained at.
    const side = writeFactors(
      [...readFactors(other, spec).values()].map((own) => ({ ...own, b: own.b.map((x) => 2 * x) })),
    );
    const alone = await trainer.train(files, jobOf(2), control());
    const beside = await trainer.train(files, { ...jobOf(2), side }, control());
    // It begins where the other one had come to.
    expect(beside.firstLoss).toBeLessThan(alone.firstLoss - 0.2);
    const before = { ...gpu.counters };
    const again = await trainer.train(files, { ...jobOf(2), side }, control());
    expect(again.update).toEqual(beside.update);
    expect(gpu.counters.bindGroupsCreated).toBe(before.bindGroupsCreated);
    // New values of the same ranks take the place of the old ones: of zero they are as none.
    const none = writeFactors([...readFactors(other, spec).values()].map((own) => ({ ...own, b: own.b.map(() => 0) })));
    const nothing = await trainer.train(files, { ...jobOf(2), side: none }, control());
    expect(gpu.counters.bindGroupsCreated).toBe(before.bindGroupsCreated);
    expect(nothing.firstLoss).toBeCloseTo(alone.firstLoss, 4);
    // A file without factors is no side at all.
    expect((await trainer.train(files, { ...jobOf(2), side: writeFactors([]) }, control())).update).toEqual(
      alone.update,
    );
  });

  it('counts the frozen adapter in what a rank takes', async () => {
    const settings = {
      ranks: [2, 4],
      alphaPerRank: 2,
      targets,
      batchSize: 2,
      sequenceLength: 48,
      baseDtype: 'f32',
    } as const;
    const plain = await trainer.proposeRank({ settings }, files, NO_LIMITS);
    const beside = await trainer.proposeRank({ settings, sideRanks: [14, 12] }, files, NO_LIMITS);
    for (const [i, verdict] of beside.verdicts.entries()) {
      expect(verdict.memoryBytes).toBeGreaterThan(plain.verdicts[i]?.memoryBytes ?? Number.POSITIVE_INFINITY);
      expect(verdict.uploadBytes).toBe(plain.verdicts[i]?.uploadBytes);
      expect(verdict.reason).toMatch(/downloads .* MB at most to train beside/);
    }
  });

  it('prunes the last directions where training has shrunk them, and not before there is anything to shrink', async () => {
    const prune = (rank: number, start: Uint8Array | undefined, pruning: { gamma: number; lambda: number } | null) =>
      trainer.train(files, { ...jobOf(rank, start), training: { ...training, pruning } }, control());
    const pruning = { gamma: 0.5, lambda: 3 };
    // B = 0: the product of norms is 0 and can only grow.
    const first = await prune(4, undefined, pruning);
    expect(first.rank).toBe(4);
    // Whoever goes on from there is pulled towards 0 by a strong penalty, and drops what has shrunk.
    const second = await prune(4, first.update, pruning);
    expect(second.rank).toBe(2);
    const { tensors } = readSafetensors(second.update);
    for (const [name, { shape }] of tensors) expect(shape[name.includes('lora_A') ? 0 : 1], name).toBe(2);
    // The directions sent are the first of those trained: with a γ that leaves no tail, the same training minus the penalty.
    const whole = await prune(4, first.update, { gamma: 1, lambda: 3 });
    expect([whole.rank, whole.update]).toEqual([4, (await prune(4, first.update, null)).update]);
    // The next round goes on at the smaller rank, and prunes again.
    expect((await prune(2, second.update, pruning)).rank).toBe(1);
    expect((await prune(1, undefined, pruning)).rank).toBe(1);
  });

  it('trains a sparse update of a size that no rank changes, and goes on from it', async () => {
    const sparse = { density: 0.1, seed: 'places' };
    const matrices = sparseMatrices(config, { ...sparse, targets });
    const zeros = writeSparseFactors(
      matrices.map((each) => ({ ...each, a: new Float32Array(0), b: new Float32Array(each.out * each.rank) })),
    );
    const play = (rank: number, start: Uint8Array) =>
      trainer.train(files, { ...jobOf(rank, start), training: { ...training, sparse } }, control());
    const first = await play(1, zeros);
    expect(first.lastLoss).toBeLessThan(first.firstLoss);
    expect(first.update.length).toBe(zeros.length);
    expect(first.update.length - sparseBytes(sparse, matrices)).toBeLessThan(4096);
    for (const [module, { values }] of readSparse(first.update, sparse, matrices))
      expect(values.filter((value) => value !== 0).length, module).toBeGreaterThan(values.length / 2);
    // The same at another rank, to the byte, in the same plan.
    const { pipelinesCreated } = gpu.counters;
    expect((await play(8, zeros)).update).toEqual(first.update);
    const second = await play(1, first.update);
    expect(gpu.counters.pipelinesCreated).toBe(pipelinesCreated);
    expect(second.firstLoss).toBeLessThan(first.firstLoss);
    await expect(play(1, startOf(1))).rejects.toMatchObject({ code: 'adapter-tensor' });
    const other = { ...training, sparse: { ...sparse, density: 0.2 } };
    const job = { ...jobOf(1, first.update), training: other };
    await expect(trainer.train(files, job, control())).rejects.toMatchObject({ code: 'adapter-tensor' });
  });

  it('counts the sparse rounds that are to come among what a rank takes', async () => {
    const settings = {
      ranks: [1, 8],
      alphaPerRank: 2,
      targets,
      batchSize: 2,
      sequenceLength: 48,
      baseDtype: 'f32' as const,
      sparseRounds: 2,
      sparseDensity: 0.25,
    };
    const upload = sparseBytes({ density: 0.25 }, sparseMatrices(config, { density: 0.25, seed: '', targets }));
    const during = await trainer.proposeRank({ settings, version: 1 }, files, NO_LIMITS);
    const after = await trainer.proposeRank({ settings, version: 2 }, files, NO_LIMITS);
    const [small, large] = during.verdicts;
    expect(small?.uploadBytes).toBe(upload + 16_384);
    expect(large?.reason).toMatch(/^Rank 8 takes .* uploads .* a round, .* MB while updates are sparse\.$/);
    expect(small?.memoryBytes).toBeGreaterThan(after.verdicts[0]?.memoryBytes ?? Number.NaN);
    expect(after.verdicts[0]?.uploadBytes).toBeLessThan(upload);
    const limits = { ...NO_LIMITS, maxUploadBytes: upload };
    await expect(trainer.proposeRank({ settings, version: 0 }, files, limits)).rejects.toMatchObject({
      code: 'no-rank-fits',
      message: expect.stringContaining('A sparse update would upload'),
    });
    expect((await trainer.proposeRank({ settings, version: 2 }, files, limits)).rank).toBeGreaterThanOrEqual(1);
    const tight = { ...NO_LIMITS, maxMemoryBytes: (small?.memoryBytes ?? 0) / 4 };
    await expect(trainer.proposeRank({ settings, version: 0 }, files, tight)).rejects.toMatchObject({
      code: 'no-rank-fits',
      message: expect.stringContaining('A sparse update would need'),
    });
    await trainer.proposeRank({ settings, version: 2 }, files, NO_LIMITS);
  });

  it('goes on from the start weights it is given, and keeps its plan from job to job', async () => {
    const first = await trainer.train(files, jobOf(2), control());
    const before = { ...gpu.counters };
    const second = await trainer.train(files, jobOf(2, first.update), control());
    expect(gpu.counters.pipelinesCreated).toBe(before.pipelinesCreated);
    expect(gpu.counters.bindGroupsCreated).toBe(before.bindGroupsCreated);
    expect(gpu.counters.bufferBytes).toBe(before.bufferBytes);
    expect(second.firstLoss).toBeLessThan(first.firstLoss - 0.2);
    // The same job from the same start gives the same bytes.
    expect((await trainer.train(files, jobOf(2), control())).update).toEqual(first.update);
  });

  it('tells how many kernels are compiled before the first step, and nothing of it once they are', async () => {
    const told: [number, number, number][] = [];
    let steps = 0;
    const watched = {
      ...control(() => (steps += 1)),
      onCompile: (done: number, total: number) => told.push([done, total, steps]),
    };
    await trainer.train(files, jobOf(5), watched);
    const [, total] = told[0] ?? [0, 0];
    expect(told).toEqual(Array.from({ length: total }, (_, i) => [i + 1, total, 0]));
    told.length = 0;
    await trainer.train(files, jobOf(5), watched);
    expect(told).toEqual([]);
  });

  it('evaluates each task, with the adapter and without', async () => {
    const { update } = await trainer.train(files, jobOf(4), control());
    const tasks = new Map([
      ['rooms', rows],
      ['one', rows.split('\n')[0] ?? ''],
    ]);
    const job = { grant: jobOf(4).grant, sequenceLength: 48, baseDtype: 'f32' } as const;
    const { signal } = new AbortController();
    const bare = await trainer.evaluate(files, job, null, tasks, signal);
    const adapted = await trainer.evaluate(files, job, update, tasks, signal);
    expect(bare.map(({ task, rows: count }) => [task, count])).toEqual([
      ['rooms', 3],
      ['one', 1],
    ]);
    for (const [i, { loss }] of adapted.entries()) expect(loss).toBeLessThan(bare[i]?.loss ?? 0);
    // B = 0 is the base model itself.
    const untrained = await trainer.evaluate(files, job, startOf(4), tasks, signal);
    for (const [i, { loss }] of untrained.entries()) expect(loss).toBeCloseTo(bare[i]?.loss ?? 0, 5);
  });

  it('keeps base weights as the run says, and takes less memory for fewer bits', async () => {
    const memory: number[] = [];
    const { signal } = new AbortController();
    const losses: number[] = [];
    for (const baseDtype of ['f32', 'f16', 'q8', 'q4'] as const) {
      const { update } = await trainer.train(files, { ...jobOf(2), training: { ...training, baseDtype } }, control());
      const job = { grant: jobOf(2).grant, sequenceLength: 48, baseDtype };
      const [result] = await trainer.evaluate(files, job, update, new Map([['rooms', rows]]), signal);
      losses.push(result?.loss ?? Number.NaN);
      const settings = { ranks: [2], alphaPerRank: 2, targets, batchSize: 2, sequenceLength: 48, baseDtype };
      memory.push((await trainer.proposeRank({ settings }, files, NO_LIMITS)).verdicts[0]?.memoryBytes ?? 0);
    }
    expect([...memory].sort((a, b) => b - a)).toEqual(memory);
    expect(new Set(memory).size).toBe(4);
    expect(new Set(losses).size).toBe(4);
    for (const loss of losses) expect(Math.abs(loss / (losses[0] ?? 0) - 1)).toBeLessThan(0.2);
  });

  it('proposes the largest rank within the volunteer’s limits, with a verdict for each', async () => {
    const settings = {
      ranks: [2, 4, 8],
      alphaPerRank: 2,
      targets,
      batchSize: 2,
      sequenceLength: 48,
      baseDtype: 'f32',
    } as const;
    expect((await trainer.proposeRank({ settings }, files, NO_LIMITS)).rank).toBe(8);
    const ownLimits = { ...NO_LIMITS, maxRank: 5 };
    const proposal = await trainer.proposeRank({ settings }, files, ownLimits);
    expect(proposal).toMatchObject({ rank: 4, ownLimits });
    expect(proposal.verdicts.map(({ fits }) => fits)).toEqual([true, true, false]);
    await expect(trainer.proposeRank({ settings }, files, { ...NO_LIMITS, maxMemoryBytes: 1e6 })).rejects.toMatchObject(
      { code: 'no-rank-fits' },
    );
  });

  it('names bad jobs', async () => {
    const run = (job: ReturnType<typeof jobOf>) => trainer.train(files, job, control());
    await expect(run({ ...jobOf(4), start: startOf(2) })).rejects.toMatchObject({ code: 'adapter-tensor' });
    await expect(run({ ...jobOf(4), rows: `${rows}\n{"prompt": 1}` })).rejects.toThrow(/Line 4/);
    await expect(run({ ...jobOf(4), rows: '\n' })).rejects.toMatchObject({ code: 'data-empty' });
    const nan = [...readFactors(startOf(4), { ...jobOf(4).grant, rslora: false }).values()].map((own, i) =>
      i === 0 ? { ...own, a: own.a.map(() => Number.NaN) } : own,
    );
    await expect(run({ ...jobOf(4), start: writeFactors(nan) })).rejects.toMatchObject({ code: 'adapter-tensor' });
  });
});
