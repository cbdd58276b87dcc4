// Whole rounds over real sockets, real files and real merge processes: three volunteers of three ranks. What the server
// makes of their uploads is computed here again, densely and in float64.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFactors } from '@weft/formats';
import type { RunSettingsInput } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from './index.ts';
import { PrunedRanks } from './runs/pruned-ranks.ts';
import { RunStore } from './store/run-store.ts';
import { combine, type Dense, distance, inner, norm, products, size } from './testing/dense.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { type Factors, firstDirections, readFactors, TestVolunteer } from './testing/volunteer.ts';

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

const create = async (settings: Partial<RunSettingsInput>) => {
  const run = await admin.request('admin:create', { ...SETTINGS, ...settings });
  await admin.request('admin:start', { runId: run.runId });
  return run.runId;
};

const enter = (runId: string, count = 3) =>
  Promise.all(Array.from({ length: count }, (_, i) => new TestVolunteer(server.url).enter({ runId, name: `v${i}` })));

const RANKS = [1, 2, 4];
const TOKENS = [100, 200, 100];
const WEIGHTS = [0.25, 0.5, 0.25];

describe.each(['flexlora', 'flexlora-carry'] as const)('two rounds of %s', (strategy) => {
  it('merges three ranks and starts the next round from what it redistributed', async () => {
    const runId = await create({ name: strategy, strategy });
    const volunteers = await enter(runId);
    const play = (seed: number) =>
      Promise.all(
        volunteers.map((v, i) => v.round(RANKS[i] ?? 1, { size: 0.05, seed: seed + i, tokens: TOKENS[i] ?? 1 })),
      );

    const first = await play(1);
    const sizes = first.map((round) => round.bytes.length);
    expect(new Set(sizes).size).toBe(3);
    expect(sizes).toEqual([...sizes].sort((a, b) => a - b));
    expect(new Set(first.map((round) => round.lease.task))).toEqual(new Set(SETTINGS.tasks));
    for (const [i, round] of first.entries()) {
      for (const factors of round.start.values()) {
        expect(factors.rank).toBe(RANKS[i]);
        expect(factors.b.every((value) => value === 0)).toBe(true);
      }
    }
    // Ranks are nested: rank 1's row is the first of rank 4's.
    const row = (index: number) =>
      [...(first[index]?.start.values() ?? [])].map(({ a, in: columns }) => [...a.slice(0, columns)]);
    expect(row(0)).toEqual(row(2));

    let merged = combine(first.map((round, i) => [WEIGHTS[i] ?? 0, products(round.update)]));
    const second = await play(10);
    const snapshot = await admin.until(runId, ({ rounds }) => rounds.length >= 1);
    expect(snapshot.rounds[0]?.contributions.map((c) => c.weight).sort()).toEqual([0.25, 0.25, 0.5]);
    for (const [i, round] of second.entries()) {
      expect(round.lease).toMatchObject({ round: 2, startVersion: 1 });
      const started = products(round.start);
      for (const { module, sigma, discardedTail, truncationError } of snapshot.rounds[0]?.spectra ?? []) {
        // Eckart and Young: no matrix of this rank is nearer than the tail of the spectrum, and this one is as near.
        const gap = norm(
          combine([
            [1, merged],
            [-1, started],
          ]).get(module),
        );
        const tail = Math.hypot(...sigma.slice(RANKS[i]), 0);
        expect(Math.abs(gap - tail)).toBeLessThan(1e-5 * Math.hypot(...sigma));
        expect(Math.abs(norm(merged.get(module)) - Math.hypot(...sigma))).toBeLessThan(1e-6 * Math.hypot(...sigma));
        expect(discardedTail).toBeLessThan(1e-12);
        expect(Object.keys(truncationError)).toEqual(['1', '2', '4']);
        expect(truncationError[String(RANKS[i])]).toBeCloseTo(tail / Math.hypot(...sigma), 10);
      }
    }
    const trained = second.map<[number, Dense]>((round, i) => [WEIGHTS[i] ?? 0, products(round.update)]);
    const started = second.map<[number, Dense]>((round, i) => [-(WEIGHTS[i] ?? 0), products(round.start)]);
    merged = strategy === 'flexlora' ? combine(trained) : combine([[1, merged], ...trained, ...started]);

    const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.run.outcome).toBe('Committed 2 rounds.');
    const changes = second.map((_, i) =>
      combine([
        [1, products(second[i]?.update as Factors)],
        [-1, products(second[i]?.start as Factors)],
      ]),
    );
    const mean = combine(changes.map((change, i) => [WEIGHTS[i] ?? 0, change]));
    for (const [i, volunteer] of volunteers.entries()) {
      const told = ended.rounds[1]?.contributions.find(({ clientId }) => clientId === volunteer.clientId);
      const change = changes[i] as Dense;
      expect((told?.changeNorm ?? Number.NaN) / size(change)).toBeCloseTo(1, 5);
      expect(told?.cosineToMean).toBeCloseTo(inner(change, mean) / (size(change) * size(mean)), 5);
      expect(told).toMatchObject({ clip: 1, outlier: null });
    }
    // The whole state is kept at rank 16, so an export of rank 16 is the merge itself.
    const reply = await fetch(`${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=16`, {
      headers: { authorization: 'Bearer a token for tests' },
    });
    const exported = readFactors(new Uint8Array(await reply.arrayBuffer()), {
      rank: 16,
      alpha: 32,
      rankPattern: {},
      alphaPattern: {},
      targets: ['q_proj'],
    });
    expect(exported.size).toBe(35);
    expect(distance(merged, products(exported))).toBeLessThan(1e-6);
    for (const volunteer of volunteers) volunteer.close();
  });
});

it.each(['raflora', 'zero-pad', 'hetlora'] as const)('two rounds of %s', async (strategy) => {
  const runId = await create({ name: strategy, strategy });
  const volunteers = await enter(runId);
  const play = (seed: number) =>
    Promise.all(
      volunteers.map((v, i) => v.round(RANKS[i] ?? 1, { size: 0.05, seed: seed + i, tokens: TOKENS[i] ?? 1 })),
    );
  const first = await play(1);
  const second = await play(10);
  for (const [i, round] of second.entries()) {
    expect(round.lease).toMatchObject({ round: 2, startVersion: 1 });
    for (const [module, { rank, a, in: columns }] of round.start) {
      expect(rank).toBe(RANKS[i]);
      if (strategy !== 'zero-pad') continue;
      // Averaged factors are kept as such: a client gets their first rows back.
      for (const k of [0, columns - 1, (rank - 1) * columns]) {
        const mean = first.reduce((sum, { update }, c) => {
          const factors = update.get(module);
          return sum + (WEIGHTS[c] ?? 0) * ((factors?.rank ?? 0) * columns > k ? (factors?.a[k] ?? Number.NaN) : 0);
        }, 0);
        expect(a[k]).toBeCloseTo(mean, 5);
      }
    }
  }
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.run.outcome).toBe('Committed 2 rounds.');
  const reply = await fetch(`${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=16`, {
    headers: { authorization: 'Bearer a token for tests' },
  });
  const grant = { rank: 16, alpha: 32, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  expect(readFactors(new Uint8Array(await reply.arrayBuffer()), grant).size).toBe(35);
  for (const volunteer of volunteers) volunteer.close();
});

describe.each(['flexlora-frozen-tail', 'flora'] as const)('two rounds of %s', (strategy) => {
  it('leave every client the whole state, what it does not train frozen beside', async () => {
    const runId = await create({ name: strategy, strategy });
    const volunteers = await enter(runId);
    const play = (seed: number) =>
      Promise.all(
        volunteers.map((v, i) => v.round(RANKS[i] ?? 1, { size: 0.05, seed: seed + i, tokens: TOKENS[i] ?? 1 })),
      );
    const first = await play(1);
    for (const { lease, side } of first) expect([lease.side, side.size]).toEqual([null, 0]);
    let merged = combine(first.map((round, i) => [WEIGHTS[i] ?? 0, products(round.update)]));
    const second = await play(10);
    for (const [i, { start, side, lease }] of second.entries()) {
      expect(lease.startVersion).toBe(1);
      for (const { rank } of start.values()) expect(rank).toBe(RANKS[i]);
      // Three clients of ranks 1, 2 and 4 left a state of rank 7.
      for (const { rank } of side.values()) expect(rank).toBe(strategy === 'flora' ? 7 : 7 - (RANKS[i] ?? 0));
      const seen = combine([
        [1, products(start)],
        [1, products(side)],
      ]);
      expect(distance(merged, seen)).toBeLessThan(1e-6);
      for (const { b } of start.values()) expect(b.every((value) => value === 0)).toBe(strategy === 'flora');
    }
    const rows = (round: (typeof first)[number]) => [...(round.start.values().next().value?.a ?? [])];
    // Fresh factors are drawn anew every round.
    const [before, after] = [first[2], second[2]];
    if (strategy === 'flora' && before && after) expect(rows(after)).not.toEqual(rows(before));
    const trained = second.map<[number, Dense]>((round, i) => [WEIGHTS[i] ?? 0, products(round.update)]);
    const started = second.map<[number, Dense]>((round, i) => [-(WEIGHTS[i] ?? 0), products(round.start)]);
    merged = combine([[1, merged], ...trained, ...started]);
    const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.run.sideRanks).toEqual(strategy === 'flora' ? [16, 16, 16] : [15, 14, 12]);
    // An export is of the state, even where clients train from fresh factors.
    const reply = await fetch(`${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=16`, {
      headers: { authorization: 'Bearer a token for tests' },
    });
    const grant = { rank: 16, alpha: 32, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
    const exported = products(readFactors(new Uint8Array(await reply.arrayBuffer()), grant));
    expect(distance(merged, exported)).toBeLessThan(1e-6);
    for (const volunteer of volunteers) volunteer.close();
  });
});

it('hetlora merges what clients pruned at the rank they kept, and grants them no more from then on', async () => {
  const runId = await create({ name: 'pruned', strategy: 'hetlora', pruneGamma: 0.75 });
  const volunteers = await enter(runId);
  const prunedTo = [undefined, undefined, 3];
  const play = (seed: number, prune: boolean) =>
    Promise.all(
      volunteers.map((v, i) => {
        const kept = prune ? prunedTo[i] : undefined;
        return v.round(RANKS[i] ?? 1, {
          size: 0.05,
          seed: seed + i,
          ...(kept === undefined ? {} : { prunedTo: kept }),
        });
      }),
    );
  const first = await play(1, true);
  expect(first.map(({ lease }) => [lease.grant.rank, lease.training.pruning])).toEqual(
    RANKS.map((rank) => [rank, { gamma: 0.75, lambda: 0.005 }]),
  );
  // The third client proposes rank 4 again. Its rank of 3 is none of the run's.
  const second = await play(10, false);
  expect(second.map(({ lease }) => lease.grant.rank)).toEqual([1, 2, 3]);
  const { rounds } = await admin.until(runId, ({ run }) => run.state === 'completed');
  const rankOf = (round: number) =>
    rounds[round]?.contributions.map(({ rank, prunedFrom }) => `${rank} of ${prunedFrom}`).sort();
  expect(rankOf(0)).toEqual(['1 of null', '2 of null', '3 of 4']);
  expect(rankOf(1)).toEqual(['1 of null', '2 of null', '3 of null']);
  // What the third client started from is the mean of all three, padded with zeros, by the norms of their products.
  const [, , third] = second;
  for (const [module, { a, in: columns, rank }] of third?.start ?? []) {
    const norms = first.map(({ update }) => norm(products(update).get(module)));
    const total = norms.reduce((sum, each) => sum + each, 0);
    for (let i = 0; i < rank * columns; i += 1) {
      const mean = first.reduce(
        (sum, { update }, k) => sum + ((norms[k] ?? 0) / total) * (update.get(module)?.a[i] ?? 0),
        0,
      );
      expect(Math.abs((a[i] ?? 0) - mean)).toBeLessThan(1e-6);
    }
  }
  // A server that starts anew knows it from its files.
  const known = new PrunedRanks(new RunStore(join(folders.dataDir, 'runs', runId)), true);
  expect(volunteers.map(({ clientId }) => known.cap(clientId, 4))).toEqual([4, 4, 3]);
  for (const volunteer of volunteers) volunteer.close();
});

it('refuses pruning where it has no place, and ranks that pruning does not leave', async () => {
  await expect(create({ name: 'whole', strategy: 'flexlora', pruneGamma: 0.9 })).rejects.toMatchObject({
    message: expect.stringMatching(/part of hetlora only/),
  });
  const runId = await create({ name: 'odd', strategy: 'hetlora', pruneGamma: 0.5, rounds: 1 });
  const [volunteer, ...others] = await enter(runId);
  if (!volunteer) throw new Error('Nobody came.');
  const lease = await volunteer.lease(4);
  const all = readFactors(await volunteer.start(lease), lease.grant);
  const upload = (rank: number) => writeFactors(firstDirections(all, rank).values());
  await expect(volunteer.send(lease, upload(3), { rank: 3 })).rejects.toMatchObject({ code: 'upload-rank' });
  // Announced as one rank and sent as another.
  await expect(volunteer.send(lease, upload(3), { rank: 2 })).rejects.toMatchObject({ code: 'upload-rank' });
  await volunteer.send(lease, upload(2), { rank: 2 });
  for (const each of [volunteer, ...others]) each.close();
});

it('SGD is granted as the run says, and bounds an upload by its clipped steps', async () => {
  const sgd = { optimiser: 'sgd', momentum: 0.5, learningRate: 2, maxGradNorm: 0.25, localSteps: 2 } as const;
  const runId = await create({ name: 'sgd', strategy: 'flexlora', rounds: 1, ...sgd });
  const volunteers = await enter(runId);
  await Promise.all(
    volunteers.map(async (volunteer, at) => {
      const lease = await volunteer.lease(RANKS[at] ?? 1);
      expect(lease.training).toMatchObject({ optimiser: 'sgd', momentum: 0.5, maxGradNorm: 0.25 });
      const start = [...readFactors(await volunteer.start(lease), lease.grant).values()];
      const upload = (distance: number) =>
        writeFactors(start.map((own) => ({ ...own, b: own.b.with(0, (own.b[0] ?? 0) + distance) })));
      // Two steps of at most 2 · 0.25 each, and half of the first once more in the second.
      await expect(volunteer.send(lease, upload(1.3))).rejects.toMatchObject({ code: 'upload-norm' });
      await volunteer.send(lease, upload(1.25));
    }),
  );
  await admin.until(runId, ({ run }) => run.state === 'completed');
  for (const volunteer of volunteers) volunteer.close();
});

it('ffa lets B train alone, and leaves out who changed A', async () => {
  const runId = await create({ name: 'ffa', strategy: 'ffa', rounds: 1, goal: 4 });
  const volunteers = await enter(runId, 4);
  const ranks = [1, 2, 4, 4];
  const rounds = await Promise.all(
    volunteers.map((v, i) => v.round(ranks[i] ?? 1, { size: 0.05, seed: i, tokens: 100, frozenA: i < 3 })),
  );
  for (const { lease } of rounds) expect(lease.training.trainable).toBe('B');
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  const { contributions } = ended.rounds[0] ?? { contributions: [] };
  const reasons = contributions.map(({ quarantined }) => quarantined).filter((reason) => reason !== null);
  expect(reasons).toEqual([expect.stringMatching(/^frozen: A was changed/)]);
  const reply = await fetch(`${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=4`, {
    headers: { authorization: 'Bearer a token for tests' },
  });
  const grant = { rank: 4, alpha: 8, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  const exported = products(readFactors(new Uint8Array(await reply.arrayBuffer()), grant));
  const mean = combine(rounds.slice(0, 3).map((round) => [1 / 3, products(round.update)]));
  expect(distance(mean, exported)).toBeLessThan(1e-6);
  for (const volunteer of volunteers) volunteer.close();
});

it('server momentum takes a share of the last step along', async () => {
  const runId = await create({ name: 'momentum', serverMomentum: 0.5, rounds: 3 });
  const volunteers = await enter(runId);
  const play = (size: number) => Promise.all(volunteers.map((v, i) => v.round(RANKS[i] ?? 1, { size, seed: i })));
  const [, , first] = await play(0.05);
  // Nobody trains any more, and the state goes on by half of what it did.
  const [, , second] = await play(0);
  const [, , third] = await play(0);
  const [moved, further] = [second, third].map((round) => products(round?.start as Factors)) as [Dense, Dense];
  expect(first?.start).toBeDefined();
  expect(distance(combine([[1.5, moved]]), further)).toBeLessThan(1e-5);
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.rounds[0]?.spectra[0]?.velocityTail).toBeLessThan(1e-9);
  for (const volunteer of volunteers) volunteer.close();
  await expect(create({ name: 'still', strategy: 'flexlora', serverMomentum: 0.5 })).rejects.toMatchObject({
    message: expect.stringContaining('only flexlora-carry, flexlora-frozen-tail, flora merge changes'),
  });
});

it.each(['flexlora', 'flexlora-carry'] as const)('%s clips a change to the cohort’s median', async (strategy) => {
  const runId = await create({ name: 'clipped', strategy, rounds: 2, maxChangeNorm: 1 });
  const volunteers = await enter(runId);
  const play = (sizes: number[]) =>
    Promise.all(volunteers.map((v, i) => v.round(4, { size: sizes[i] ?? 0, seed: i + 1, tokens: TOKENS[i] ?? 1 })));
  const first = await play([0.03, 0.05, 0.08]);
  const second = await play([0.03, 0.05, 0.08]);
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  let state = combine([[0, products(first[0]?.start as Factors)]]);
  for (const [round, played] of [first, second].entries()) {
    const changes = played.map(({ update, start }) =>
      combine([
        [1, products(update)],
        [-1, products(start)],
      ]),
    );
    const norms = changes.map(size);
    const bound = [...norms].sort((a, b) => a - b)[1] ?? Number.NaN;
    const clips = norms.map((each) => Math.min(1, bound / each));
    expect(clips[2]).toBeLessThan(0.9);
    for (const [i, volunteer] of volunteers.entries()) {
      const told = ended.rounds[round]?.contributions.find(({ clientId }) => clientId === volunteer.clientId);
      expect(told?.clip).toBeCloseTo(clips[i] ?? Number.NaN, 5);
      expect((told?.changeNorm ?? Number.NaN) / (norms[i] ?? 1)).toBeCloseTo(1, 5);
    }
    const clipped = changes.map<[number, Dense]>((change, i) => [(WEIGHTS[i] ?? 0) * (clips[i] ?? 1), change]);
    const starts = played.map<[number, Dense]>(({ start }, i) => [WEIGHTS[i] ?? 0, products(start)]);
    state = combine([...(strategy === 'flexlora' ? starts : [[1, state] as [number, Dense]]), ...clipped]);
  }
  const reply = await fetch(`${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=16`, {
    headers: { authorization: 'Bearer a token for tests' },
  });
  const grant = { rank: 16, alpha: 32, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  expect(distance(state, products(readFactors(new Uint8Array(await reply.arrayBuffer()), grant)))).toBeLessThan(1e-5);
  for (const volunteer of volunteers) volunteer.close();
  await expect(create({ name: 'averages', strategy: 'hetlora', maxChangeNorm: 2 })).rejects.toMatchObject({
    message: expect.stringContaining('zero-pad, hetlora, fedit, slora average factors'),
  });
});

it('rejects who pulls against the others, and merges who has something else to tell', async () => {
  const runId = await create({ name: 'opposed', rounds: 1, goal: 6, rejectOpposed: 0.75 });
  const volunteers = await enter(runId, 6);
  // Four go one way, one another, and the last one goes their way backwards and further.
  const moves = [0.04, 0.045, 0.05, 0.055, 0.05, -0.1].map((far, i) => ({ size: far, seed: i === 4 ? 99 : 1 }));
  await Promise.all(volunteers.map((v, i) => v.round(4, moves[i] ?? { size: 0, seed: 0 })));
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.run.outcome).toBe('Committed 1 round; 1 upload quarantined (similarity).');
  const told = volunteers.map(({ clientId }) =>
    ended.rounds[0]?.contributions.find((contribution) => contribution.clientId === clientId),
  );
  expect(told.map((each) => each?.weight)).toEqual([0.2, 0.2, 0.2, 0.2, 0.2, 0].map((x) => expect.closeTo(x, 12)));
  expect(told[5]?.quarantined).toMatch(/^similarity: the update pulls against the others: cosine -0\.\d{3} with/);
  // It had no part in the mean that it is compared with.
  expect(told[5]?.cosineToMean).toBeLessThan(-0.5);
  expect(told[0]?.cosineToMean).toBeGreaterThan(0.9);
  expect(ended.log.some(({ text }) => text.includes('quarantined: similarity'))).toBe(true);
  for (const volunteer of volunteers) volunteer.close();
  await expect(create({ name: 'strict', rejectOpposed: 0.1 })).rejects.toMatchObject({
    message: expect.stringContaining('must be 0 or at least 0.5'),
  });
});

it('fedit is refused for mixed ranks, and takes one', async () => {
  await expect(create({ name: 'mixed', strategy: 'fedit' })).rejects.toMatchObject({
    code: 'bad-message',
    message: expect.stringContaining('fedit averages factors of one rank'),
  });
  const runId = await create({ name: 'alike', strategy: 'fedit', ranks: [2], rounds: 1 });
  const volunteers = await enter(runId);
  await Promise.all(volunteers.map((v, i) => v.round(2, { size: 0.05, seed: i })));
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.run.outcome).toBe('Committed 1 round.');
  for (const volunteer of volunteers) volunteer.close();
});

it('flexlora-carry is the identity when nobody trains', async () => {
  const runId = await create({ name: 'zero', strategy: 'flexlora-carry', rounds: 3 });
  const volunteers = await enter(runId);
  const play = (size: number) => Promise.all(volunteers.map((v, i) => v.round(RANKS[i] ?? 1, { size, seed: i })));
  await play(0.05);
  const before = await play(0);
  const after = await play(0);
  for (const [i, round] of after.entries()) {
    const was = before[i];
    expect(was).toBeDefined();
    if (was) expect(distance(products(was.start), products(round.start))).toBeLessThan(1e-6);
  }
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.rounds.every((record) => record.contributions.every((c) => c.quarantined === null))).toBe(true);
  for (const volunteer of volunteers) volunteer.close();
  const events = join(folders.dataDir, 'runs', runId, 'events.jsonl');
  expect(existsSync(events)).toBe(true);
  const types = readFileSync(events, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).type);
  expect(types.filter((type) => type === 'committed')).toHaveLength(3);
  expect(types).toContain('uploaded');
});

it('works over long polling too', async () => {
  const runId = await create({ name: 'polling', rounds: 1 });
  const volunteers = await Promise.all(
    RANKS.map(() => new TestVolunteer(server.url, { transports: ['polling'] }).enter({ runId })),
  );
  await Promise.all(volunteers.map((v, i) => v.round(RANKS[i] ?? 1, { size: 0.05, seed: i })));
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.rounds).toHaveLength(1);
  for (const volunteer of volunteers) volunteer.close();
});
