// What the data folder promises, from outside: an older folder's run goes on, half-written and lost files are named and cost
// nothing else, a stopping server finishes what it began, a full disk is survived, old bytes go and their receipts stay.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeFactors } from '@weft/formats';
import { ProtocolError, type RunSettingsInput } from '@weft/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RunningServer, ServerOptions } from './index.ts';
import { checkReportSchema } from './store/check-report.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { readFactors, TestVolunteer, train } from './testing/volunteer.ts';

/** Made by the program of commit eb13ef3: a run in training, one upload of three delivered. */
const FIRST_FORMAT = fileURLToPath(new URL('store/fixtures/data-dir-v1', import.meta.url));
const ITS_RUN = 'format-one-18afc026';
const ITS_UPLOAD = 'b68cce4ff5465aa633e57923858277717a22f38b58c75366360f9e8382d37f02';

let folders: ReturnType<typeof makeFolders>;
const open: { close(): unknown }[] = [];
beforeEach(() => {
  folders = makeFolders();
});
const closeAll = async () => {
  for (const one of open.splice(0).reverse()) await one.close();
};
afterEach(async () => {
  await closeAll();
  folders.remove();
});
const keep = <T extends { close(): unknown }>(one: T): T => {
  open.push(one);
  return one;
};

async function start(options: Partial<ServerOptions> = {}): Promise<{ server: RunningServer; admin: TestAdmin }> {
  const server = keep(await startServer(folders, options));
  return { server, admin: keep(new TestAdmin(server.url)) };
}

async function create(admin: TestAdmin, settings: Partial<RunSettingsInput> = {}): Promise<string> {
  const { runId } = await admin.request('admin:create', { ...SETTINGS, rounds: 1, ...settings });
  await admin.request('admin:start', { runId });
  return runId;
}

const enter = (url: string, runId: string, identity?: TestVolunteer): Promise<TestVolunteer> =>
  keep(new TestVolunteer(url, identity ? { identity } : {})).enter({ runId });

const failure = (work: Promise<unknown>): Promise<ProtocolError> =>
  work.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: unknown) => error as ProtocolError,
  );

const blobPath = (hash: string): string => join(folders.dataDir, 'uploads', hash.slice(0, 2), hash);
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats what is answered "later". */
async function patiently<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ProtocolError) || error.retryAfterMs === undefined) throw error;
      await wait(200);
    }
  }
}

describe('a data folder', () => {
  it('of the first format goes on with its run in the middle of training', async () => {
    cpSync(FIRST_FORMAT, folders.dataDir, { recursive: true });
    const { server, admin } = await start({ leaseMs: 1_000, hiddenLeaseMs: 1_000 });
    expect((await admin.snapshot(ITS_RUN)).round).toMatchObject({
      round: 1,
      phase: 'training',
      uploaded: 1,
      training: 2,
    });
    expect(JSON.parse(readFileSync(join(folders.dataDir, 'format.json'), 'utf8'))).toEqual({ format: 2 });
    // Those who held the other places are gone; two others get them.
    const people = await Promise.all([1, 2].map(() => enter(server.url, ITS_RUN)));
    await Promise.all(people.map((one, i) => one.round(1, { size: 0.01, seed: i + 5 })));
    const { rounds } = await admin.until(ITS_RUN, (snapshot) => snapshot.rounds.length === 1);
    expect(rounds[0]).toMatchObject({ outcome: 'committed', version: 1 });
    expect(rounds[0]?.contributions.map(({ sha256 }) => sha256)).toContain(ITS_UPLOAD);
  });

  it('of a newer format is refused by name, and nothing in it is touched', async () => {
    cpSync(FIRST_FORMAT, folders.dataDir, { recursive: true });
    writeFileSync(join(folders.dataDir, 'format.json'), '{"format": 99}');
    expect(await failure(startServer(folders))).toMatchObject({
      code: 'data-dir-newer',
      message: expect.stringMatching(/format 99.*Update Weft/),
    });
    const state = readFileSync(join(folders.dataDir, 'runs', ITS_RUN, 'state.json'), 'utf8');
    expect(state).not.toContain('sequence');
  });

  it('with half-written files starts without them and says which', async () => {
    cpSync(FIRST_FORMAT, folders.dataDir, { recursive: true });
    const temporary = join('runs', ITS_RUN, 'uploads', '1', 'x.json.0123abcd.tmp');
    writeFileSync(join(folders.dataDir, temporary), '{"half');
    mkdirSync(join(folders.dataDir, 'partial'), { recursive: true });
    writeFileSync(join(folders.dataDir, 'partial', 'nobodys-lease.part'), 'bytes');
    writeFileSync(join(folders.dataDir, 'runs', ITS_RUN, 'journal.jsonl'), '{"n":1,"ev');
    writeFileSync(blobPath(ITS_UPLOAD), Buffer.alloc(6976));
    const { server } = await start();
    const path = join(folders.dataDir, 'report.json');
    for (let i = 0; i < 50 && !existsSync(path); i++) await wait(50);
    const { findings } = checkReportSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
    expect(findings.map(({ kind }) => kind).sort()).toEqual([
      'journal-cut',
      'partial-without-lease',
      'temporary',
      'upload-damaged',
    ]);
    expect(existsSync(join(folders.dataDir, temporary))).toBe(false);
    expect(readdirSync(join(folders.dataDir, 'partial'))).toEqual([]);
    const health = (await (await fetch(`${server.url}/healthz`)).json()) as Record<string, unknown>;
    expect(health).toMatchObject({ status: 'ok', storage: { low: false, findings: { 'upload-damaged': 1 } } });
  });

  it('that lost an acknowledged upload merges without it and tells the operator', async () => {
    const first = await start();
    const runId = await create(first.admin, { goal: 4 });
    const people = await Promise.all([1, 2, 3, 4].map(() => enter(first.server.url, runId)));
    const [late, ...others] = people as [TestVolunteer, ...TestVolunteer[]];
    await late.lease(1);
    const done = await Promise.all(others.map((one, i) => one.round(2, { size: 0.01, seed: i })));
    await closeAll();
    const lost = done[0]?.receipt.sha256 ?? '';
    rmSync(blobPath(lost));
    const { server, admin } = await start();
    await (await enter(server.url, runId, late)).round(1, { size: 0.01, seed: 9 });
    const { rounds, log } = await admin.until(runId, ({ run }) => run.state === 'completed');
    const told = rounds[0]?.contributions.find(({ sha256 }) => sha256 === lost);
    expect(told).toMatchObject({ weight: 0, quarantined: expect.stringContaining('has lost the bytes') });
    expect(rounds[0]?.contributions.filter(({ quarantined }) => quarantined === null)).toHaveLength(3);
    expect(log.some(({ text }) => text.includes('has lost the bytes'))).toBe(true);
  });
});

it('a server told to stop finishes what it has begun and sends everybody else away for a while', async () => {
  const { server, admin } = await start();
  const runId = await create(admin);
  const [inside, outside] = (await Promise.all([1, 2].map(() => enter(server.url, runId)))) as [
    TestVolunteer,
    TestVolunteer,
  ];
  // Its start weights have to be made first, by a process that has to be started.
  const begun = inside.lease(4);
  await wait(30);
  const closing = server.close();
  const refused = await failure(outside.join(2));
  expect(refused).toMatchObject({ code: 'server-stopping' });
  expect(refused.retryAfterMs).toBeGreaterThanOrEqual(5_000);
  expect(await begun).toMatchObject({ round: 1, grant: { rank: 4 } });
  await closing;
  const next = await start();
  expect((await next.admin.snapshot(runId)).round).toMatchObject({ phase: 'selecting', training: 1 });
});

it('the bytes of uploads go when their time is over; receipts, hashes and the result stay', async () => {
  const { server, admin } = await start({ uploadRetentionMs: 300 });
  const runId = await create(admin);
  const people = await Promise.all([1, 2, 3].map(() => enter(server.url, runId)));
  const done = await Promise.all(people.map((one, i) => one.round(2, { size: 0.01, seed: i })));
  await admin.until(runId, ({ run }) => run.state === 'completed');
  const swept = join(folders.dataDir, 'runs', runId, 'swept', '1.json');
  for (let i = 0; i < 100 && !existsSync(swept); i++) await wait(50);
  expect(JSON.parse(readFileSync(swept, 'utf8'))).toMatchObject({ uploads: 3 });
  for (const { receipt } of done) {
    expect(existsSync(blobPath(receipt.sha256))).toBe(false);
    const sidecar = join(folders.dataDir, 'runs', runId, 'uploads', '1', `${receipt.leaseId}.json`);
    expect(JSON.parse(readFileSync(sidecar, 'utf8')).receipt).toEqual(receipt);
  }
  const [first] = people;
  const [mine] = done;
  if (!first || !mine) throw new Error('three volunteers');
  expect(await first.send(mine.lease, mine.bytes)).toEqual(mine.receipt);
});

/** A small disk of its own, where this machine lets us have one. */
function mountSmallDisk(path: string): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  mkdirSync(path, { recursive: true });
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', path], { stdio: 'ignore' });
    return true;
  } catch {
    // No right to mount, as in most containers; the test says that it is skipped.
    return false;
  }
}

describe('a full disk', () => {
  let isMounted = false;
  beforeEach(() => {
    isMounted = mountSmallDisk(folders.dataDir);
  });
  afterEach(async () => {
    await closeAll();
    if (isMounted) execFileSync('umount', ['-l', folders.dataDir]);
  });
  const filler = () => join(folders.dataDir, 'filler');
  const free = () => {
    const { bavail, bsize } = statfsSync(folders.dataDir);
    return bavail * bsize;
  };
  const fill = (leave: number) => writeFileSync(filler(), Buffer.alloc(Math.max(0, free() - leave)));

  it('is refused before it is full, and taken again when there is room', async ({ skip }) => {
    if (!isMounted) skip('this test needs the right to mount a small disk');
    const { server, admin } = await start({ minFreeBytes: 4e6 });
    const runId = await create(admin);
    const people = await Promise.all([1, 2, 3].map(() => enter(server.url, runId)));
    const leases = await Promise.all(people.map((one) => one.lease(1)));
    fill(3e6);
    const [first] = people;
    const [lease] = leases;
    if (!first || !lease) throw new Error('three volunteers');
    await wait(600);
    const refused = await failure(first.request('upload:begin', first.announcement(lease, new Uint8Array(1_000))));
    expect(refused).toMatchObject({ code: 'storage-full', retryAfterMs: 60_000 });
    rmSync(filler());
    await wait(600);
    await Promise.all(
      people.map(async (one, i) => {
        const granted = leases[i] ?? lease;
        const update = train(readFactors(await one.start(granted), granted.grant), 0.01, i);
        await one.send(granted, writeFactors(update.values()));
      }),
    );
    await admin.until(runId, ({ run }) => run.state === 'completed');
  });

  it('loses nothing and ends no round: uploads and the merge wait for room', async ({ skip }) => {
    if (!isMounted) skip('this test needs the right to mount a small disk');
    const { server, admin } = await start({ minFreeBytes: 0 });
    const runId = await create(admin);
    const people = await Promise.all([1, 2, 3].map(() => enter(server.url, runId)));
    const leases = await Promise.all(people.map((one) => one.lease(4)));
    const updates = await Promise.all(
      people.map(async (one, i) => {
        const lease = leases[i];
        if (!lease) throw new Error('a lease');
        return {
          one,
          lease,
          bytes: writeFactors(train(readFactors(await one.start(lease), lease.grant), 0.01, i).values()),
        };
      }),
    );
    const [first, second, third] = updates;
    if (!first || !second || !third) throw new Error('three volunteers');
    fill(0);
    expect(await failure(first.one.send(first.lease, first.bytes))).toMatchObject({ code: 'storage-full' });
    rmSync(filler());
    const receipt = await patiently(() => first.one.send(first.lease, first.bytes));
    await second.one.send(second.lease, second.bytes);
    // Room for the last upload and its sidecar, none for the merge.
    fill(third.bytes.length + 40_000);
    await third.one.send(third.lease, third.bytes);
    const waiting = await admin.until(runId, ({ log }) =>
      log.some(({ text }) => text.includes('waits with its merge')),
    );
    expect(waiting.round.phase).toBe('merging');
    rmSync(filler());
    const { rounds } = await admin.until(runId, ({ run }) => run.state === 'completed');
    expect(rounds[0]?.contributions.map(({ sha256 }) => sha256)).toContain(receipt.sha256);
    expect(rounds[0]?.contributions).toHaveLength(3);
    await closeAll();
    const again = await start({ minFreeBytes: 0 });
    expect((await again.admin.snapshot(runId)).rounds).toEqual(rounds);
  });
});
