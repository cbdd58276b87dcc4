// What happens when volunteers vanish, come back, hide, wait, or change their mind; and who may evaluate.
import { writeFactors } from '@weft/formats';
import { type ProtocolError, ROUTES, type RunSettingsInput } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer, ServerOptions } from './index.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { readFactors, sha256, TestVolunteer, train } from './testing/volunteer.ts';

const LEASE_MS = 1_200;

/** A server and its operator. */
class House {
  readonly folders = makeFolders();
  #server: RunningServer | undefined;
  #admin: TestAdmin | undefined;

  async open(options: Partial<ServerOptions>): Promise<void> {
    this.#server = await startServer(this.folders, options);
    this.#admin = new TestAdmin(this.#server.url);
  }

  get url(): string {
    return this.#server?.url ?? '';
  }

  get admin(): TestAdmin {
    if (!this.#admin) throw new Error('the server is not open');
    return this.#admin;
  }

  async create(settings: Partial<RunSettingsInput>): Promise<string> {
    const run = await this.admin.request('admin:create', { ...SETTINGS, ...settings });
    await this.admin.request('admin:start', { runId: run.runId });
    return run.runId;
  }

  enter(runId: string, count: number): Promise<TestVolunteer[]> {
    const names = Array.from({ length: count }, (_, i) => `v${i}`);
    return Promise.all(names.map((name) => new TestVolunteer(this.url).enter({ runId, name })));
  }

  async close(): Promise<void> {
    this.#admin?.close();
    await this.#server?.close();
    this.folders.remove();
  }
}

/** Patient: only what a test does on purpose ends a lease. Hasty: a lease is soon lost. */
const patient = new House();
const hasty = new House();

beforeAll(async () => {
  await patient.open({ selectionGraceMs: 3_000 });
  await hasty.open({ leaseMs: LEASE_MS, hiddenLeaseMs: 60_000, heartbeatMs: 200 });
});

afterAll(async () => {
  await patient.close();
  await hasty.close();
});

const failure = (work: Promise<unknown>): Promise<ProtocolError> =>
  work.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: unknown) => error as ProtocolError,
  );

const progress = { stage: 'training', step: 1, steps: 2, loss: 4, targetTokens: 10, tokensPerSecond: 100 } as const;
const beat = (volunteer: TestVolunteer, leaseId: string, isHidden: boolean) =>
  volunteer.request('lease:heartbeat', { leaseId, hidden: isHidden, paused: false, progress });
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a lease', () => {
  it('is lost without a sign of life, kept by heartbeats, and long for a hidden tab', async () => {
    const runId = await hasty.create({ name: 'leases', rounds: 1, lateMs: 0 });
    const [silent, beating, hidden] = await hasty.enter(runId, 3);
    if (!silent || !beating || !hidden) throw new Error('three volunteers');
    const leases = await Promise.all([silent.lease(1), beating.lease(2), hidden.lease(4)]);
    expect((await beat(hidden, leases[2].leaseId, true)).leaseMs).toBe(60_000);
    for (let i = 0; i < 6; i++) {
      await wait(LEASE_MS / 3);
      await beat(beating, leases[1].leaseId, false);
    }
    const snapshot = await hasty.admin.snapshot(runId);
    const states = Object.fromEntries(snapshot.clients.map((client) => [client.name, client.state]));
    expect(states).toEqual({ v0: 'dropped', v1: 'training', v2: 'training' });
    expect(snapshot.clients.find((client) => client.name === 'v0')?.reason).toContain('no sign of life');
    expect(snapshot.clients.find((client) => client.name === 'v1')?.progress).toEqual(progress);
    expect(snapshot.round).toMatchObject({ leased: 3, training: 2, dropped: 1, here: 3 });
    expect((await failure(beat(silent, leases[0].leaseId, false))).code).toBe('lease-expired');
    for (const volunteer of [silent, beating, hidden]) volunteer.close();
    await hasty.admin.request('admin:stop', { runId });
  });

  it('given back on closing is offered to one who waits, at once', async () => {
    const runId = await patient.create({ name: 'release', rounds: 1, goal: 3 });
    const volunteers = await patient.enter(runId, 5);
    const [first, second, third, fourth, waiting] = volunteers as [
      TestVolunteer,
      TestVolunteer,
      TestVolunteer,
      TestVolunteer,
      TestVolunteer,
    ];
    const lease = await first.lease(1);
    for (const volunteer of [second, third, fourth]) await volunteer.lease(2);
    const reply = await waiting.join(4);
    expect(reply).toMatchObject({ status: 'waiting', round: { phase: 'training', goal: 3, training: 4 } });
    const granted = waiting.granted();
    await first.request('lease:release', { leaseId: lease.leaseId, reason: 'page-closed' });
    expect(await granted).toMatchObject({ round: 1, grant: { rank: 4 } });
    const snapshot = await patient.admin.snapshot(runId);
    expect(snapshot.round).toMatchObject({ leased: 5, training: 4, dropped: 1 });
    expect(snapshot.clients.find((client) => client.clientId === first.clientId)).toMatchObject({
      state: 'dropped',
      reason: 'The page was closed.',
    });
    for (const volunteer of volunteers) volunteer.close();
    await patient.admin.request('admin:stop', { runId });
  });

  it('and its upload are found again by the same key over a new line', async () => {
    const runId = await patient.create({ name: 'resume', rounds: 1 });
    const volunteers = await patient.enter(runId, 3);
    const [first, ...others] = volunteers as [TestVolunteer, TestVolunteer, TestVolunteer];
    const lease = await first.lease(4);
    const bytes = writeFactors([...train(readFactors(await first.start(lease), lease.grant), 0.01, 3).values()]);
    const sent = 50_000;
    expect(bytes.length).toBeGreaterThan(sent);
    await first.request('upload:begin', first.announcement(lease, bytes));
    await first.request('upload:chunk', { leaseId: lease.leaseId, offset: 0, bytes: bytes.slice(0, sent) });
    first.close();
    const again = await new TestVolunteer(patient.url, { identity: first }).enter({ runId });
    expect(again.clientId).toBe(first.clientId);
    expect((await again.lease(4)).leaseId).toBe(lease.leaseId);
    expect((await again.request('upload:begin', again.announcement(lease, bytes))).offset).toBe(sent);
    expect((await again.send(lease, bytes)).sha256).toBe(sha256(bytes));
    await Promise.all(others.map((volunteer, i) => volunteer.round(1 + i, { size: 0.01, seed: i })));
    const ended = await patient.admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.rounds[0]?.contributions).toHaveLength(3);
    for (const volunteer of [again, ...others]) volunteer.close();
  });

  it('of a page that vanished ends with it, and the round commits without it', async () => {
    const runId = await hasty.create({ name: 'vanish', rounds: 1, goal: 4, minimum: 3 });
    const volunteers = await hasty.enter(runId, 4);
    const [gone, ...others] = volunteers as [TestVolunteer, ...TestVolunteer[]];
    await gone.lease(1);
    const leases = await Promise.all(
      others.map(async (volunteer) => {
        const lease = await volunteer.lease(2);
        // As of a hidden tab: that lease outlasts a busy machine.
        await beat(volunteer, lease.leaseId, true);
        return { volunteer, lease };
      }),
    );
    gone.socket.disconnect();
    await Promise.all(
      leases.map(async ({ volunteer, lease }, i) => {
        const start = readFactors(await volunteer.start(lease), lease.grant);
        await volunteer.send(lease, writeFactors([...train(start, 0.01, i).values()]));
      }),
    );
    const ended = await hasty.admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.rounds[0]?.contributions).toHaveLength(3);
    expect(ended.clients.find((client) => client.clientId === gone.clientId)?.state).toBe('gone');
    for (const volunteer of others) volunteer.close();
  });

  it('asked for again at another rank is a new one', async () => {
    const runId = await patient.create({ name: 'rank', rounds: 1 });
    const [volunteer] = await patient.enter(runId, 1);
    if (!volunteer) throw new Error('one volunteer');
    const small = await volunteer.lease(1);
    const large = await volunteer.lease(4);
    expect(large.leaseId).not.toBe(small.leaseId);
    expect(large.grant.rank).toBe(4);
    const factors = [...readFactors(await volunteer.start(large), large.grant).values()];
    expect(factors.every((matrix) => matrix.rank === 4)).toBe(true);
    volunteer.close();
    await patient.admin.request('admin:stop', { runId });
  });
});

describe('a round', () => {
  it('short of its minimum is abandoned with a reason, and the run goes on from the same version', async () => {
    const runId = await patient.create({ name: 'abandon', rounds: 1, selectionMs: 1_000 });
    const [lonely, ...others] = await patient.enter(runId, 3);
    if (!lonely) throw new Error('volunteers');
    await lonely.lease(1);
    const snapshot = await patient.admin.until(runId, ({ rounds }) => rounds.length === 1);
    expect(snapshot.rounds[0]).toMatchObject({
      outcome: 'abandoned',
      reason: 'Selection ended with 1 volunteer; 3 are needed.',
      version: 0,
    });
    const leases = await Promise.all([
      lonely.round(1, { size: 0.01, seed: 1 }),
      ...others.map((v, i) => v.round(2, { size: 0.01, seed: i + 2 })),
    ]);
    expect(leases.map(({ lease }) => [lease.round, lease.startVersion])).toEqual([
      [2, 0],
      [2, 0],
      [2, 0],
    ]);
    const ended = await patient.admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.run.outcome).toBe('Committed 1 round; 1 round abandoned.');
    for (const volunteer of [lonely, ...others]) volunteer.close();
  });

  it('leaves out an absurd upload and says so', async () => {
    const runId = await patient.create({ name: 'quarantine', rounds: 1, goal: 4, minimum: 3, learningRate: 1 });
    const volunteers = await patient.enter(runId, 4);
    await Promise.all(volunteers.map((volunteer, i) => volunteer.round(2, { size: i === 0 ? 3 : 0.01, seed: i })));
    const ended = await patient.admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.run.outcome).toBe('Committed 1 round; 1 upload quarantined (norm).');
    const [bad, ...good] = [...(ended.rounds[0]?.contributions ?? [])].sort((a, b) => a.weight - b.weight);
    expect(bad).toMatchObject({
      clientId: volunteers[0]?.clientId,
      weight: 0,
      quarantined: expect.stringMatching(/^norm: /),
    });
    expect(good.map((contribution) => contribution.weight)).toEqual(
      [1 / 3, 1 / 3, 1 / 3].map((x) => expect.closeTo(x, 12)),
    );
    expect(ended.round).toMatchObject({ leased: 4, uploaded: 3, quarantined: 1 });
    for (const volunteer of volunteers) volunteer.close();
  });

  it('takes own files where the run allows small cohorts of them, and never hears of a task', async () => {
    const runId = await patient.create({ name: 'own', rounds: 1, smallOwnFileCohorts: true });
    const volunteers = await patient.enter(runId, 3);
    const own = { kind: 'own', consent: true, examples: 7 } as const;
    const rounds = await Promise.all(
      volunteers.map((volunteer, i) => volunteer.round(1, { size: 0.01, seed: i, ...(i === 0 ? { data: own } : {}) })),
    );
    expect(rounds[0]?.lease.task).toBeNull();
    const ended = await patient.admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.rounds[0]?.contributions.filter((contribution) => contribution.task === null)).toHaveLength(1);
    for (const volunteer of volunteers) volunteer.close();
  });

  it('is the same for everybody in deterministic mode: exactly the goal, nobody again', async () => {
    const runId = await patient.create({ name: 'deterministic', rounds: 2, deterministic: true });
    const volunteers = await patient.enter(runId, 3);
    for (const seed of [0, 10]) {
      await Promise.all(
        volunteers.map((volunteer, i) => volunteer.round([1, 2, 4][i] ?? 1, { size: 0.01, seed: seed + i })),
      );
    }
    const ended = await patient.admin.until(runId, ({ run }) => run.state === 'completed');
    expect(ended.rounds.map((record) => record.contributions.length)).toEqual([3, 3]);
    for (const volunteer of volunteers) volunteer.close();
  });
});

describe('evaluation', () => {
  it('measures base and versions, oldest first, without a round waiting for it', async () => {
    const runId = await patient.create({ name: 'evaluate', rounds: 1, evaluate: true });
    const volunteers = await patient.enter(runId, 3);
    await Promise.all(volunteers.map((volunteer, i) => volunteer.round(1, { size: 0.01, seed: i })));
    await patient.admin.until(runId, ({ run }) => run.state === 'completed');
    const evaluator = await new TestVolunteer(patient.url).enter({ runId, operatorToken: ADMIN_TOKEN });
    expect((await patient.admin.snapshot(runId)).round.here).toBe(3);
    for (const [version, loss] of [
      [0, 5.91],
      [1, 2.87],
    ] as const) {
      const { job } = await evaluator.request('evaluation:next', {});
      if (!job) throw new Error('a job');
      expect(job).toMatchObject({ runId, version, grant: { rank: 4 }, tasks: SETTINGS.tasks });
      expect(job.adapter === null).toBe(version === 0);
      const results = job.tasks.map((task) => ({ task, loss, targetTokens: 10, rows: 3 }));
      const partial = { jobId: job.jobId, results: results.slice(1) };
      expect((await failure(evaluator.request('evaluation:report', partial))).code).toBe('evaluation-refused');
      await evaluator.request('evaluation:report', { jobId: job.jobId, results });
    }
    expect((await evaluator.request('evaluation:next', {})).job).toBeNull();
    const snapshot = await patient.admin.snapshot(runId);
    expect(snapshot.baseLoss).toEqual({ rooms: 5.91, containers: 5.91, travel: 5.91 });
    expect(snapshot.rounds[0]?.heldOutLoss).toEqual({ rooms: 2.87, containers: 2.87, travel: 2.87 });
    expect(snapshot.run.outcome).toBe('Committed 1 round; held-out loss 5.91 → 2.87.');
    for (const volunteer of [evaluator, ...volunteers]) volunteer.close();

    const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
    const card = await (await fetch(patient.url + ROUTES.adapter(runId, 'README.md'), { headers })).text();
    expect(card).toContain('| rooms | 2.8700 |');
    const config = await (await fetch(patient.url + ROUTES.adapter(runId, 'adapter_config.json'), { headers })).json();
    expect(config).toMatchObject({ r: 4, lora_alpha: 8, base_model_name_or_path: 'stories260K', rank_pattern: {} });
    const zip = new Uint8Array(
      await (await fetch(patient.url + ROUTES.adapter(runId, 'adapter.zip'), { headers })).arrayBuffer(),
    );
    expect([...zip.slice(0, 2)]).toEqual([0x50, 0x4b]);
    const { contributors } = (await (await fetch(patient.url + ROUTES.contributors(runId), { headers })).json()) as {
      contributors: unknown[];
    };
    expect(contributors).toHaveLength(3);
    expect(contributors[0]).toMatchObject({
      rounds: 1,
      targetTokens: 100,
      largestRank: 1,
      quarantined: 0,
      lastRound: 1,
    });
  });
});
