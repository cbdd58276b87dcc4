// A buffered-asynchronous run over real sockets: volunteers of different versions in one merge, computed here again in float64.
import { writeFactors } from '@weft/formats';
import { ProtocolError, type RunSettingsInput } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from './index.ts';
import { combine, type Dense, distance, products } from './testing/dense.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { readFactors, TestVolunteer, train } from './testing/volunteer.ts';

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
  const run = await admin.request('admin:create', { ...SETTINGS, mode: 'buffered', ...settings });
  await admin.request('admin:start', { runId: run.runId });
  return run.runId;
};

const enter = async (runId: string, count: number): Promise<TestVolunteer[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => new TestVolunteer(server.url).enter({ runId, name: `v${i}` })));

async function prepare(volunteer: TestVolunteer, seed: number) {
  const lease = await volunteer.lease(1);
  const start = readFactors(await volunteer.start(lease), lease.grant);
  const update = train(start, 0.05, seed);
  return { volunteer, lease, start, update, bytes: writeFactors(update.values()) };
}
type Work = Awaited<ReturnType<typeof prepare>>;

const deliver = ({ volunteer, lease, bytes }: Work) => volunteer.send(lease, bytes);

/** Weighted changes: work `tau` versions old counts (1 + tau)^−power. */
function merged(works: readonly (readonly [Work, number])[], power: number): [number, Dense][] {
  const weights = works.map(([, tau]) => (1 + tau) ** -power);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return works.flatMap(([{ update, start }], i): [number, Dense][] => {
    const share = (weights[i] ?? 0) / total;
    return [
      [share, products(update)],
      [-share, products(start)],
    ];
  });
}

async function exported(runId: string): Promise<Dense> {
  const url = `${server.url}/api/runs/${runId}/adapter/adapter_model.safetensors?rank=16`;
  const reply = await fetch(url, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } });
  const grant = { rank: 16, alpha: 32, rankPattern: {}, alphaPattern: {}, targets: ['q_proj' as const] };
  return products(readFactors(new Uint8Array(await reply.arrayBuffer()), grant));
}

describe('a buffered run', () => {
  it('merges every three uploads while the others train on, the stale for less', async () => {
    const runId = await create({ name: 'buffered', rounds: 3, concurrency: 5, stalenessPower: 1 });
    const volunteers = await enter(runId, 5);
    const first = await Promise.all(volunteers.map((volunteer, i) => prepare(volunteer, i + 1)));
    expect(first.map(({ lease }) => [lease.round, lease.startVersion])).toEqual(first.map(() => [1, 0]));
    const [a, b, c, d, e] = first as [Work, Work, Work, Work, Work];
    for (const work of [a, b, c]) await deliver(work);
    const { round } = await admin.until(runId, ({ rounds }) => rounds.length === 1);
    // Training never stopped, and nobody lost a lease.
    expect(round).toMatchObject({ round: 2, phase: 'training', training: 2, uploaded: 0, dropped: 0 });
    expect(volunteers.flatMap(({ revoked }) => revoked)).toEqual([]);

    const fresh = await prepare(a.volunteer, 11);
    expect(fresh.lease).toMatchObject({ round: 2, startVersion: 1 });
    // Two that started before the first merge, and one that started after it.
    for (const work of [d, e, fresh]) await deliver(work);
    await admin.until(runId, ({ rounds }) => rounds.length === 2);
    const last = await Promise.all([a, b, c].map(({ volunteer }, i) => prepare(volunteer, i + 21)));
    expect(last.map(({ lease }) => lease.startVersion)).toEqual([2, 2, 2]);
    for (const work of last) await deliver(work);
    const { rounds, run } = await admin.until(runId, ({ run }) => run.state === 'completed');
    expect(run.outcome).toBe('Committed 3 rounds.');
    expect(rounds.map(({ contributions }) => contributions.map(({ startVersion }) => startVersion).sort())).toEqual([
      [0, 0, 0],
      [0, 0, 1],
      [2, 2, 2],
    ]);
    // 1, ½ and ½ of the fresh one's tokens.
    expect(rounds[1]?.contributions.map(({ weight }) => weight).sort()).toEqual([0.25, 0.25, 0.5]);
    const expected = combine([
      ...merged(
        [a, b, c].map((work) => [work, 0]),
        1,
      ),
      ...merged(
        [
          [d, 1],
          [e, 1],
          [fresh, 0],
        ],
        1,
      ),
      ...merged(
        last.map((work) => [work, 0]),
        1,
      ),
    ]);
    expect(distance(expected, await exported(runId))).toBeLessThan(1e-6);
    for (const volunteer of volunteers) volunteer.close();
  });

  it('revokes what has become too old, and merges nothing of it', async () => {
    const runId = await create({ name: 'stale', rounds: 3, concurrency: 4, maxStaleness: 0 });
    const volunteers = await enter(runId, 4);
    const works = await Promise.all(volunteers.map((volunteer, i) => prepare(volunteer, i + 1)));
    for (const work of works.slice(0, 3)) await deliver(work);
    await admin.until(runId, ({ rounds }) => rounds.length === 1);
    expect(volunteers[3]?.revoked).toMatchObject([
      { reason: 'It started from version 0, 1 versions ago; this run takes at most 0.', lateMs: 0 },
    ]);
    const [late] = works.slice(3);
    await expect(late && deliver(late)).rejects.toMatchObject({ code: 'lease-expired' });
    await admin.request('admin:stop', { runId, reason: null });
    for (const volunteer of volunteers) volunteer.close();
  });

  it('goes on from where it was after a restart', async () => {
    const runId = await create({ name: 'restarted', rounds: 2, concurrency: 4 });
    let volunteers = await enter(runId, 4);
    const works = await Promise.all(volunteers.map((volunteer, i) => prepare(volunteer, i + 1)));
    for (const work of works.slice(0, 2)) await deliver(work);
    for (const volunteer of volunteers) volunteer.close();
    admin.close();
    await server.close();
    server = await startServer(folders);
    admin = new TestAdmin(server.url);
    volunteers = await Promise.all(
      volunteers.map((identity) => new TestVolunteer(server.url, { identity }).enter({ runId })),
    );
    for (const [i, work] of works.slice(2).entries())
      await deliver({ ...work, volunteer: volunteers[i + 2] ?? work.volunteer });
    const { rounds, round } = await admin.until(runId, (snapshot) => snapshot.rounds.length === 1);
    expect(rounds[0]?.contributions).toHaveLength(3);
    expect(round).toMatchObject({ round: 2, uploaded: 1 });
    await admin.request('admin:stop', { runId, reason: null });
    for (const volunteer of volunteers) volunteer.close();
  });

  it.each(['flexlora', 'raflora', 'zero-pad', 'ffa'] as const)('is refused with %s, by name', async (strategy) => {
    const made = admin.request('admin:create', { ...SETTINGS, mode: 'buffered', strategy });
    const error = await made.then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(ProtocolError);
    expect(error).toMatchObject({ code: 'bad-message' });
    expect(String(error)).toContain(`${strategy} merges no work that started from an older version`);
  });
});
