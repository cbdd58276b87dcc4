// Runs that begin with sparse rounds, over real sockets, files and merge processes: what all clients share, what they start
// from when factors take over, and what is refused. Computed here again, densely and in float64.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loraTargets, parseModelConfig, sparseColumns, sparseTensorName, writeSafetensors } from '@weft/formats';
import type { RunSettingsInput } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from './index.ts';
import { MODEL_DIR, makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { type Factors, readFactors, TestVolunteer } from './testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
beforeAll(async () => {
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
});
afterAll(async () => {
  admin.close();
  await server.close();
  folders.remove();
});

const config = parseModelConfig(readFileSync(join(MODEL_DIR, 'config.json'), 'utf8'));
const ADAPTED = ['q_proj', 'down_proj'] as const;
const TARGETS = loraTargets(config, ADAPTED);
const SPARSE = { density: 0.1, seed: 'places' };
const TOKENS = [100, 200, 100];
const WEIGHTS = [0.25, 0.5, 0.25];

type Dense = ReadonlyMap<string, Float64Array>;
type Elements = ReadonlyMap<string, { readonly values: Float32Array | Float64Array }>;

const combine = (terms: readonly (readonly [number, Dense])[]): Dense =>
  new Map(
    TARGETS.map(({ module, out, in: columns }) => {
      const total = new Float64Array(out * columns);
      for (const [factor, dense] of terms)
        dense.get(module)?.forEach((value, i) => {
          total[i] = (total[i] ?? 0) + factor * value;
        });
      return [module, total];
    }),
  );
const norm = (values: Float64Array | undefined): number => Math.hypot(...(values ?? [Number.NaN]));
/** ‖a − b‖ by module. */
const gaps = (a: Dense, b: Dense): Map<string, number> =>
  new Map(
    Array.from(
      combine([
        [1, a],
        [-1, b],
      ]),
      ([module, values]) => [module, norm(values)],
    ),
  );

const products = (factors: Factors): Dense =>
  new Map(
    Array.from(factors, ([module, { a, b, rank, scale, out, in: columns }]) => {
      const product = new Float64Array(out * columns);
      for (let i = 0; i < out * columns; i += 1) {
        const [row, column] = [Math.floor(i / columns), i % columns];
        for (let k = 0; k < rank; k += 1)
          product[i] = (product[i] ?? 0) + scale * (b[row * rank + k] ?? 0) * (a[k * columns + column] ?? 0);
      }
      return [module, product];
    }),
  );

/** The matrices that elements stand for. */
const whole = (elements: Elements): Dense =>
  new Map(
    TARGETS.map((target) => {
      const columns = sparseColumns(SPARSE, target);
      const { values } = elements.get(target.module) ?? { values: [] };
      const dense = new Float64Array(target.out * target.in);
      const perRow = columns.length / target.out;
      for (const [k, column] of columns.entries())
        dense[Math.floor(k / perRow) * target.in + column] = values[k] ?? Number.NaN;
      return [target.module, dense];
    }),
  );

async function create(settings: Partial<RunSettingsInput>) {
  const sparse = {
    sparseDensity: SPARSE.density,
    seed: SPARSE.seed,
    rounds: 4,
    sparseRounds: 2,
    targets: [...ADAPTED],
  };
  const run = await admin.request('admin:create', { ...SETTINGS, ...sparse, ...settings });
  await admin.request('admin:start', { runId: run.runId });
  return run.runId;
}

const enter = (runId: string) =>
  Promise.all(TOKENS.map((_, i) => new TestVolunteer(server.url).enter({ runId, name: `v${i}` })));

async function exported(runId: string, rank: number, version: number): Promise<Dense> {
  const url = `${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=${rank}&version=${version}`;
  const reply = await fetch(url, { headers: { authorization: 'Bearer a token for tests' } });
  const grant = { rank, alpha: 2 * rank, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  return products(readFactors(new Uint8Array(await reply.arrayBuffer()), grant));
}

describe.each([
  ['slora', [2], [2, 2, 2]],
  ['flexlora', [1, 2, 4], [1, 2, 4]],
  ['flexlora-frozen-tail', [1, 2, 4], [1, 2, 4]],
] as const)('two sparse rounds, and two of %s', (strategy, ranks, granted) => {
  it('share their places, and hand the best approximation of the mean over to factors', async () => {
    const runId = await create({ name: strategy, strategy, ranks: [...ranks] });
    const volunteers = await enter(runId);
    const options = (seed: number, i: number) => ({ size: 0.02, seed: seed + i, tokens: TOKENS[i] ?? 1 });
    const playSparse = (seed: number) =>
      Promise.all(volunteers.map((v, i) => v.sparseRound(granted[i] ?? 1, options(seed, i))));
    const play = (seed: number) => Promise.all(volunteers.map((v, i) => v.round(granted[i] ?? 1, options(seed, i))));

    const first = await playSparse(1);
    expect(new Set(first.map(({ lease }) => lease.start.sha256)).size).toBe(1);
    expect(new Set(first.map(({ bytes }) => bytes.length)).size).toBe(1);
    for (const { lease, start } of first) {
      expect(lease).toMatchObject({ training: { sparse: SPARSE }, side: null, startVersion: 0 });
      expect(start.size).toBe(10);
      for (const { module, in: columns } of TARGETS) {
        expect(start.get(module)?.perRow).toBe(Math.round(0.1 * columns));
        expect(start.get(module)?.values.every((value) => value === 0)).toBe(true);
      }
    }
    const mean = (rounds: readonly { update: Elements }[]) =>
      combine(rounds.map(({ update }, i) => [WEIGHTS[i] ?? 0, whole(update)] as const));
    const second = await playSparse(10);
    const afterFirst = mean(first);
    for (const { start, lease } of second) {
      expect(lease.startVersion).toBe(1);
      for (const [module, gap] of gaps(whole(start), afterFirst)) expect(gap, module).toBeLessThan(1e-6);
    }

    const third = await play(20);
    const afterSecond = mean(second);
    const snapshot = await admin.until(runId, ({ rounds }) => rounds.length >= 2);
    // Every version is read out by its decomposition, those between sparse rounds too.
    const tails = (version: number, module: string, rank: number) => {
      const { sigma, discardedTail } = snapshot.rounds[version - 1]?.spectra.find((each) => each.module === module) ?? {
        sigma: [],
        discardedTail: Number.NaN,
      };
      // discardedTail is a share of the whole norm, of which sigma is the rest.
      const size = Math.hypot(...sigma) / Math.sqrt(1 - discardedTail ** 2);
      return { tail: Math.hypot(...sigma.slice(rank), discardedTail * size), size };
    };
    for (const [version, merged] of [
      [1, afterFirst],
      [2, afterSecond],
    ] as const) {
      for (const [module, gap] of gaps(await exported(runId, 4, version), merged)) {
        const { tail, size } = tails(version, module, 4);
        expect(Math.abs(gap - tail), module).toBeLessThan(1e-5 * size);
        expect(Math.abs(norm(merged.get(module)) / size - 1), module).toBeLessThan(1e-6);
      }
    }
    for (const [i, { start, lease, side }] of third.entries()) {
      expect(lease).toMatchObject({ training: { sparse: null }, startVersion: 2 });
      const rank = granted[i] ?? 0;
      const kept = strategy === 'flexlora-frozen-tail' ? 16 : rank;
      const seen = combine([
        [1, products(start)],
        [1, products(side)],
      ]);
      for (const [module, gap] of gaps(seen, afterSecond)) {
        const { tail, size } = tails(2, module, kept);
        expect(Math.abs(gap - tail), module).toBeLessThan(1e-5 * size);
      }
    }

    await play(30);
    const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.run.outcome).toBe('Committed 4 rounds.');
    expect(ended.rounds.flatMap(({ contributions }) => contributions.map((each) => each.quarantined))).toEqual(
      Array(12).fill(null),
    );
    if (strategy === 'flexlora') {
      const after = combine(third.map(({ update }, i) => [WEIGHTS[i] ?? 0, products(update)] as const));
      for (const [module, gap] of gaps(await exported(runId, 16, 3), after)) expect(gap, module).toBeLessThan(1e-5);
    }
    for (const volunteer of volunteers) volunteer.close();
  });
});

it('tell how their changes agree, and clip the one that moved furthest', async () => {
  const run = { name: 'clip', strategy: 'flexlora', rounds: 2, sparseRounds: 1, maxChangeNorm: 1 } as const;
  const runId = await create(run);
  const volunteers = await enter(runId);
  const sizes = [0.02, 0.02, 0.06];
  const played = await Promise.all(
    volunteers.map((v, i) => v.sparseRound(2, { size: sizes[i] ?? 0, seed: i + 1, tokens: TOKENS[i] ?? 1 })),
  );
  const snapshot = await admin.until(runId, ({ rounds }) => rounds.length >= 1);
  const updates = played.map(({ update }) => whole(update));
  const norms = updates.map((update) => Math.hypot(...[...update.values()].map(norm)));
  const middle = [...norms].sort((a, b) => a - b)[1] ?? Number.NaN;
  const clips = norms.map((size) => Math.min(1, middle / size));
  const mean = combine(updates.map((update, i) => [(WEIGHTS[i] ?? 0) * (clips[i] ?? 0), update] as const));
  const size = Math.hypot(...[...mean.values()].map(norm));
  for (const [i, update] of updates.entries()) {
    const told = snapshot.rounds[0]?.contributions.find(({ clientId }) => clientId === volunteers[i]?.clientId);
    const product = [...update].reduce(
      (sum, [module, values]) => sum + values.reduce((s, value, k) => s + value * (mean.get(module)?.[k] ?? 0), 0),
      0,
    );
    expect(told?.changeNorm).toBeCloseTo(norms[i] ?? Number.NaN, 5);
    expect(told?.clip).toBeCloseTo(clips[i] ?? Number.NaN, 6);
    expect(told?.cosineToMean).toBeCloseTo(product / ((norms[i] ?? 0) * size), 5);
  }
  for (const [module, gap] of gaps(await exported(runId, 64, 1), mean)) {
    const { sigma = [], discardedTail = 0 } = snapshot.rounds[0]?.spectra.find((each) => each.module === module) ?? {};
    const lost = discardedTail * (Math.hypot(...sigma) / Math.sqrt(1 - discardedTail ** 2));
    expect(Math.abs(gap - lost), module).toBeLessThan(1e-5 * Math.hypot(...sigma));
  }
  for (const volunteer of volunteers) volunteer.close();
});

it('go on where a server that was closed between them has left them', async () => {
  const own = makeFolders();
  const first = await startServer(own);
  const clerk = new TestAdmin(first.url);
  const { runId } = await clerk.request('admin:create', {
    ...{ ...SETTINGS, name: 'restart', strategy: 'slora', ranks: [2], rounds: 3, sparseRounds: 2 },
    targets: [...ADAPTED],
    sparseDensity: SPARSE.density,
    seed: SPARSE.seed,
  });
  await clerk.request('admin:start', { runId });
  const come = (url: string) =>
    Promise.all(TOKENS.map((_, i) => new TestVolunteer(url).enter({ runId, name: `v${i}` })));
  const before = await come(first.url);
  const played = await Promise.all(before.map((v, i) => v.sparseRound(2, { size: 0.02, seed: i })));
  await clerk.until(runId, ({ rounds }) => rounds.length >= 1);
  for (const each of [...before, clerk]) each.close();
  await first.close();

  const second = await startServer(own);
  const after = await come(second.url);
  const again = await Promise.all(after.map((v, i) => v.sparseRound(2, { size: 0.02, seed: 10 + i })));
  const mean = combine(played.map(({ update }) => [1 / 3, whole(update)] as const));
  for (const [module, gap] of gaps(whole(again[0]?.start ?? new Map()), mean)) expect(gap, module).toBeLessThan(1e-6);
  const lease = await after[0]?.lease(2);
  expect(lease).toMatchObject({ startVersion: 2, training: { sparse: null } });
  for (const each of after) each.close();
  await second.close();
  own.remove();
});

it('a sparse upload is held to its places, its numbers and its size', async () => {
  const runId = await create({ name: 'bad', strategy: 'flexlora' });
  const [volunteer] = await enter(runId);
  if (!volunteer) throw new Error('nobody came');
  const lease = await volunteer.lease(2);
  const start = await volunteer.start(lease);
  type Change = (module: string, perRow: number) => { perRow?: number; fill?: number; name?: string };
  const upload = (change: Change) =>
    writeSafetensors(
      TARGETS.map(({ module, out, in: columns }) => {
        const made = change(module, Math.round(0.1 * columns));
        const perRow = made.perRow ?? Math.round(0.1 * columns);
        return {
          name: made.name ?? sparseTensorName(module),
          dtype: 'F32' as const,
          shape: [out, perRow],
          data: new Float32Array(out * perRow).fill(made.fill ?? 0),
        };
      }),
    );
  const at = (module: string) => module === TARGETS[3]?.module;
  const send = (change: Change) => volunteer.send(lease, upload(change));
  await expect(send((module) => (at(module) ? { perRow: 2 } : {}))).rejects.toMatchObject({ code: 'upload-shape' });
  await expect(send((module) => (at(module) ? { fill: Number.NaN } : {}))).rejects.toMatchObject({
    code: 'upload-non-finite',
  });
  await expect(send((module) => (at(module) ? { fill: 1000 } : {}))).rejects.toMatchObject({ code: 'upload-norm' });
  await expect(send((module) => (at(module) ? { name: `x.${module}.sparse_delta` } : {}))).rejects.toMatchObject({
    code: 'upload-shape',
    message: expect.stringContaining(`lacks ${sparseTensorName(TARGETS[3]?.module ?? '')}`),
  });
  await expect(send((_module, perRow) => ({ perRow: 4 * perRow }))).rejects.toMatchObject({
    code: 'upload-too-large',
    message: expect.stringContaining('elements at the density 0.1'),
  });
  // The round has lost nothing by it.
  expect((await volunteer.send(lease, start)).bytes).toBe(start.length);
  for (const refused of [
    { name: 'mixed', strategy: 'slora' as const },
    { name: 'plain', strategy: 'slora' as const, ranks: [2], sparseRounds: 0 },
    { name: 'all', sparseRounds: 4 },
  ])
    await expect(create(refused)).rejects.toMatchObject({
      code: 'bad-message',
      message: expect.stringMatching(/slora|fewer/),
    });
  volunteer.close();
});
