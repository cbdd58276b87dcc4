// Work that misses its round, over real sockets: taken for a while, merged with the next round where the strategy allows, credited
// in any case; and what the operator says of a round.
import { writeFactors } from '@weft/formats';
import { type ProtocolError, type RunSettingsInput, roundRecordSchema } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from './index.ts';
import { combine, type Dense, distance, products } from './testing/dense.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { type Factors, readFactors, TestVolunteer, train } from './testing/volunteer.ts';

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

const enter = (runId: string, count: number) =>
  Promise.all(Array.from({ length: count }, (_, i) => new TestVolunteer(server.url).enter({ runId, name: `v${i}` })));

const failure = (work: Promise<unknown>): Promise<ProtocolError> =>
  work.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: unknown) => error as ProtocolError,
  );

const until = async (holds: () => boolean) => {
  for (let i = 0; i < 400 && !holds(); i++) await new Promise((resolve) => setTimeout(resolve, 25));
  expect(holds()).toBe(true);
};

/** Trains from a lease without delivering. */
async function prepare(volunteer: TestVolunteer, rank: number, seed: number) {
  const lease = await volunteer.lease(rank);
  const start = readFactors(await volunteer.start(lease), lease.grant);
  const update = train(start, 0.05, seed);
  return { lease, start, update, bytes: writeFactors(update.values()) };
}

/** A round of four in which the last is not ready when the three others have delivered. */
async function roundWithOneLate(runId: string, volunteers: readonly TestVolunteer[]) {
  const works = await Promise.all(volunteers.map((volunteer, i) => prepare(volunteer, 1, i + 1)));
  for (const [i, work] of works.slice(0, 3).entries()) await volunteers[i]?.send(work.lease, work.bytes);
  await admin.until(runId, ({ rounds }) => rounds.length === 1);
  return works;
}

const change = (weight: number, { update, start }: { update: Factors; start: Factors }): [number, Dense][] => [
  [weight, products(update)],
  [-weight, products(start)],
];

async function exported(runId: string): Promise<Dense> {
  const url = `${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=16`;
  const reply = await fetch(url, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
  const grant = { rank: 16, alpha: 32, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  return products(readFactors(new Uint8Array(await reply.arrayBuffer()), grant));
}

describe('an upload that comes after its round has ended', () => {
  it('is merged with the next round by a carry strategy, less for being old; a restart loses nothing of it', async () => {
    const runId = await create({ name: 'late carry', strategy: 'flexlora-carry', rounds: 2 });
    let volunteers = await enter(runId, 4);
    const works = await roundWithOneLate(runId, volunteers);
    const [late] = works.slice(3);
    const straggler = volunteers[3];
    if (!late || !straggler) throw new Error('four volunteers');
    expect(straggler.revoked.at(-1)).toMatchObject({ leaseId: late.lease.leaseId, lateMs: 30_000 });
    const receipt = await straggler.send(late.lease, late.bytes);
    expect(receipt).toMatchObject({ round: 1, leaseId: late.lease.leaseId });
    // Asked again, it gives the same receipt.
    expect(await straggler.send(late.lease, late.bytes)).toEqual(receipt);

    for (const volunteer of volunteers) volunteer.close();
    admin.close();
    await server.close();
    server = await startServer(folders);
    admin = new TestAdmin(server.url);
    volunteers = await Promise.all(
      volunteers.map((identity) => new TestVolunteer(server.url, { identity }).enter({ runId })),
    );

    const next = await Promise.all(volunteers.slice(0, 3).map((volunteer, i) => prepare(volunteer, 1, i + 11)));
    for (const [i, work] of next.entries()) await volunteers[i]?.send(work.lease, work.bytes);
    const { rounds, run } = await admin.until(runId, ({ run }) => run.state === 'completed');
    const told = rounds[1]?.contributions.find(({ late }) => late !== null);
    expect(told).toMatchObject({
      clientId: straggler.clientId,
      startVersion: 0,
      late: 'Too late for round 1; merged with round 2.',
      quarantined: null,
    });
    expect(rounds[1]?.reason).toBe('Merged 4 uploads, 1 of them late.');
    expect(rounds[0]?.reason).toBe('Merged 3 uploads; 1 of 4 leases dropped.');
    expect(run.outcome).toBe('Committed 2 rounds.');
    // All claim the same tokens, so one version late counts 2^−½ of the others.
    const share = 1 / (3 + 2 ** -0.5);
    expect(told?.weight).toBeCloseTo(share * 2 ** -0.5, 12);
    const expected = combine([
      ...works.slice(0, 3).map<[number, Dense]>(({ update }) => [1 / 3, products(update)]),
      ...next.flatMap((work) => change(share, work)),
      ...change(share * 2 ** -0.5, late),
    ]);
    expect(distance(expected, await exported(runId))).toBeLessThan(1e-6);
    for (const volunteer of volunteers) volunteer.close();
  });

  it('is only credited by flexlora, and says so', async () => {
    const runId = await create({ name: 'late flexlora', strategy: 'flexlora', rounds: 2 });
    const volunteers = await enter(runId, 4);
    const works = await roundWithOneLate(runId, volunteers);
    const [late] = works.slice(3);
    const straggler = volunteers[3];
    if (!late || !straggler) throw new Error('four volunteers');
    await straggler.send(late.lease, late.bytes, { targetTokens: 77 });
    const next = await Promise.all(volunteers.slice(0, 3).map((volunteer, i) => prepare(volunteer, 4, i + 21)));
    for (const [i, work] of next.entries()) await volunteers[i]?.send(work.lease, work.bytes);
    const { rounds } = await admin.until(runId, ({ run }) => run.state === 'completed');
    const told = rounds[1]?.contributions.find(({ clientId }) => clientId === straggler.clientId);
    expect(told).toMatchObject({
      weight: 0,
      targetTokens: 77,
      late: 'Too late for round 1; credited, but not merged: flexlora merges no work that started from an older version.',
    });
    expect(rounds[1]?.reason).toBe('Merged 3 uploads; 1 late and only credited.');
    const expected = combine(next.map<[number, Dense]>(({ update }) => [1 / 3, products(update)]));
    expect(distance(expected, await exported(runId))).toBeLessThan(1e-6);
    const reply = await fetch(`${server.url}/api/runs/${runId}/contributors`, {
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    });
    const { contributors } = (await reply.json()) as { contributors: { clientId: string; targetTokens: number }[] };
    expect(contributors.find(({ clientId }) => clientId === straggler.clientId)?.targetTokens).toBe(77);
    for (const volunteer of volunteers) volunteer.close();
  });

  it('is credited in the last record when the run ends before another merge', async () => {
    const runId = await create({ name: 'late at the end', rounds: 5 });
    const volunteers = await enter(runId, 4);
    const works = await roundWithOneLate(runId, volunteers);
    const [late] = works.slice(3);
    if (!late) throw new Error('four volunteers');
    await volunteers[3]?.send(late.lease, late.bytes);
    await admin.request('admin:stop', { runId, reason: 'enough for today' });
    const { rounds, run } = await admin.snapshot(runId);
    const contributions = rounds.flatMap((record) => roundRecordSchema.parse(record).contributions);
    expect(contributions.filter(({ clientId }) => clientId === volunteers[3]?.clientId)).toMatchObject([
      { weight: 0, late: 'Too late for round 1; credited, but not merged: the run has ended.' },
    ]);
    expect(run.outcome).toMatch(/^Stopped after 1 committed round \(enough for today\)/);
    for (const volunteer of volunteers) volunteer.close();
  });

  it('is refused when its time is over, and where the run takes no late work', async () => {
    for (const lateMs of [300, 0]) {
      const runId = await create({ name: `late by ${lateMs}`, rounds: 2, lateMs });
      const volunteers = await enter(runId, 4);
      const works = await roundWithOneLate(runId, volunteers);
      const [late] = works.slice(3);
      const straggler = volunteers[3];
      if (!late || !straggler) throw new Error('four volunteers');
      await until(() => straggler.revoked.at(-1)?.lateMs === 0);
      const error = await failure(straggler.send(late.lease, late.bytes));
      expect(['round-closed', 'unknown-lease', 'lease-expired']).toContain(error.code);
      await admin.request('admin:stop', { runId });
      for (const volunteer of volunteers) volunteer.close();
    }
  });
});

describe('the operator', () => {
  it('extends a deadline and abandons a round, each with a reason all can read; the run goes on', async () => {
    const runId = await create({ name: 'commands', rounds: 1, trainingMs: 60_000 });
    const volunteers = await enter(runId, 4);
    const works = await Promise.all(volunteers.map((volunteer, i) => prepare(volunteer, 1, i + 1)));
    const before = (await admin.snapshot(runId)).round;
    await admin.request('admin:extend', { runId, ms: 600_000, reason: 'phones are slow today' });
    const { round, log } = await admin.snapshot(runId);
    expect((round.remainingMs ?? 0) - (before.remainingMs ?? 0)).toBeGreaterThan(590_000);
    expect(round.reason).toBe(
      'Training: 0 of 3 uploads are in. The operator gave the round 600 s more: phones are slow today.',
    );
    expect(log.map(({ text }) => text)).toContain('admin extended the round: phones are slow today.');

    const [first] = works;
    if (first) await volunteers[0]?.send(first.lease, first.bytes);
    await admin.request('admin:abort-round', { runId, reason: 'wrong task' });
    await until(() => volunteers.slice(1).every(({ revoked }) => revoked.length === 1));
    expect(volunteers[3]?.revoked).toMatchObject([
      { reason: 'The operator abandoned the round: wrong task.', lateMs: 0 },
    ]);
    const second = await Promise.all(volunteers.map((volunteer, i) => prepare(volunteer, 1, i + 5)));
    expect(second[0]?.lease.round).toBe(2);
    for (const [i, work] of second.slice(0, 3).entries()) await volunteers[i]?.send(work.lease, work.bytes);
    const { rounds, run } = await admin.until(runId, ({ run }) => run.state === 'completed');
    expect(rounds[0]).toMatchObject({ outcome: 'abandoned', reason: 'The operator abandoned the round: wrong task.' });
    // What was in the abandoned round is in no merge.
    expect(rounds[1]?.contributions.map(({ late }) => late)).toEqual([null, null, null]);
    expect(run.outcome).toBe('Committed 1 round; 1 round abandoned.');
    const error = await failure(admin.request('admin:extend', { runId, ms: 1_000, reason: null }));
    expect(error.code).toBe('run-state');
    for (const volunteer of volunteers) volunteer.close();
  });

  it('shares places over the ranks where the run is stratified; what a tier leaves goes to others', async () => {
    const runId = await create({ name: 'tiers', rounds: 1, goal: 4, stratify: true, selectionMs: 3_000 });
    const volunteers = await enter(runId, 7);
    // Six places, two a rank: four quick devices of rank 1 come first, and two of them wait.
    const quick = await Promise.all(volunteers.slice(0, 4).map((volunteer) => volunteer.join(1)));
    expect(quick.map(({ status }) => status).sort()).toEqual(['leased', 'leased', 'waiting', 'waiting']);
    const waiting = quick.find(({ status }) => status === 'waiting');
    expect(waiting?.status === 'waiting' && waiting.retryAfterMs).toBeGreaterThanOrEqual(5_000);
    expect((await volunteers[4]?.join(4))?.status).toBe('leased');
    // Nobody of rank 2 comes: before selection ends their places go to those who wait.
    const round = (await admin.until(runId, (snapshot) => snapshot.round.phase === 'training')).round;
    expect(round).toMatchObject({ training: 5 });
    await admin.request('admin:stop', { runId });
    for (const volunteer of volunteers) volunteer.close();
  });
});
