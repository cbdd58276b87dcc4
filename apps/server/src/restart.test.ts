// A server killed without warning (SIGKILL), in the built form an operator runs: what was acknowledged is still there, the
// round goes on where it stood, and the same uploads give the same bytes.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeFactors } from '@weft/formats';
import { afterEach, expect, it } from 'vitest';
import { deleteIndex, makeFolders, SETTINGS, startServer, TestAdmin, testOptions } from './testing/server.ts';
import { readFactors, TestVolunteer, train } from './testing/volunteer.ts';

const DIST = fileURLToPath(new URL('../dist/index.js', import.meta.url));
const PROGRAM = `
  const { createServer } = await import(${JSON.stringify(DIST)});
  const server = await createServer({ ...JSON.parse(process.argv[1]) });
  process.on('SIGTERM', () => server.close());
  process.send(server.url);
`;

const open: { close(): void }[] = [];
const children: ChildProcess[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

async function forkServer(folders: {
  dataDir: string;
  pagesDir: string;
}): Promise<{ url: string; child: ChildProcess }> {
  const child = spawn(
    process.execPath,
    ['--input-type=module', '-e', PROGRAM, JSON.stringify({ ...testOptions(folders), leaseMs: 10_000 })],
    { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
  );
  children.push(child);
  const [url] = (await once(child, 'message')) as [string];
  return { url, child };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

const keep = <T extends { close(): void }>(one: T): T => {
  open.push(one);
  return one;
};

it('loses nothing it acknowledged, resumes the round, and commits', async () => {
  const folders = makeFolders();
  let { url, child } = await forkServer(folders);
  let admin = keep(new TestAdmin(url));
  const { runId } = await admin.request('admin:create', { ...SETTINGS, name: 'Killed', rounds: 2 });
  await admin.request('admin:start', { runId });
  const people = await Promise.all([1, 2, 3].map(() => keep(new TestVolunteer(url)).enter({ runId })));
  const [first, second, third] = people as [TestVolunteer, TestVolunteer, TestVolunteer];
  const delivered = await first.round(1, { size: 0.01, seed: 1 });
  const lease = await second.lease(2);
  await third.lease(4);
  await admin.until(runId, ({ round }) => round.phase === 'training');
  const bytes = writeFactors([...train(readFactors(await second.start(lease), lease.grant), 0.01, 2).values()]);
  await second.request('upload:begin', second.announcement(lease, bytes));
  await second.request('upload:chunk', { leaseId: lease.leaseId, offset: 0, bytes: bytes.slice(0, 10_000) });
  const before = (await admin.snapshot(runId)).round;

  await kill(child);
  ({ url, child } = await forkServer(folders));
  admin = keep(new TestAdmin(url));
  const after = (await admin.snapshot(runId)).round;
  expect(after).toMatchObject({ round: 1, phase: 'training', leased: 3, training: 2, uploaded: 1 });
  // Downtime does not count: the phase has the time left it had, but for what passed while the server was up.
  expect(Math.abs((after.remainingMs ?? 0) - (before.remainingMs ?? 0))).toBeLessThan(5_000);

  const back = await Promise.all(people.map((one) => keep(new TestVolunteer(url, { identity: one })).enter({ runId })));
  const [again, secondAgain, thirdAgain] = back as [TestVolunteer, TestVolunteer, TestVolunteer];
  expect(await again.send(delivered.lease, delivered.bytes)).toEqual(delivered.receipt);
  expect((await secondAgain.lease(2)).leaseId).toBe(lease.leaseId);
  expect(await secondAgain.request('upload:begin', secondAgain.announcement(lease, bytes))).toEqual({ offset: 10_000 });
  await secondAgain.send(lease, bytes);
  await thirdAgain.round(4, { size: 0.01, seed: 3 });
  const committed = await admin.until(runId, ({ rounds }) => rounds.length === 1);
  expect(committed.rounds[0]?.contributions.map((c) => c.sha256)).toContain(delivered.receipt.sha256);

  // Once more, now with nobody there and the state of the round lost as well as the index: the files are enough.
  for (const one of back) one.close();
  await kill(child);
  await deleteIndex(folders.dataDir);
  ({ url, child } = await forkServer(folders));
  admin = keep(new TestAdmin(url));
  const snapshot = await admin.snapshot(runId);
  expect(snapshot.rounds).toEqual(committed.rounds);
  expect(snapshot.run.version).toBe(1);
  const headers = { authorization: 'Bearer a token for tests' };
  const { contributors } = (await (await fetch(`${url}/api/runs/${runId}/contributors`, { headers })).json()) as {
    contributors: unknown[];
  };
  expect(contributors).toHaveLength(3);

  const stopped = once(child, 'exit');
  child.kill('SIGTERM');
  expect(await stopped).toEqual([0, null]);
  expect(existsSync(join(folders.dataDir, 'lock'))).toBe(false);
  folders.remove();
}, 120_000);

it('killed while merging merges again after the restart, to the same bytes', async () => {
  const commits: string[] = [];
  for (const interrupted of [false, true]) {
    const folders = makeFolders();
    // Without interruption in this process, so that sources and build are compared as well.
    const child = interrupted ? await forkServer(folders) : null;
    const server = child ? null : await startServer(folders);
    let url = child?.url ?? server?.url ?? '';
    let admin = keep(new TestAdmin(url));
    const { runId } = await admin.request('admin:create', { ...SETTINGS, name: 'Same bytes', rounds: 1 });
    await admin.request('admin:start', { runId });
    const people = await Promise.all([1, 2, 3].map(() => keep(new TestVolunteer(url)).enter({ runId })));
    const leases = await Promise.all(people.map((one, i) => one.lease([1, 2, 4][i] ?? 1)));
    await admin.until(runId, ({ round }) => round.phase === 'training');
    for (const [i, one] of people.entries()) {
      const lease = leases[i];
      if (!lease) throw new Error('a lease');
      const update = train(readFactors(await one.start(lease), lease.grant), 0.01, i);
      const sent = one.send(lease, writeFactors(update.values()));
      if (i < 2 || !child) await sent;
      else {
        await sent;
        await kill(child.child);
        const next = await forkServer(folders);
        url = next.url;
        admin = keep(new TestAdmin(url));
      }
    }
    await admin.until(runId, ({ run }) => run.state === 'completed');
    const globals = readdirSync(join(folders.dataDir, 'globals'), { recursive: true, encoding: 'utf8' }).filter(
      (path) => path.length > 10,
    );
    expect(globals).toHaveLength(1);
    commits.push(globals[0] ?? '');
    const events = readFileSync(join(folders.dataDir, 'runs', runId, 'events.jsonl'), 'utf8');
    expect(events.match(/"type":"committed"/g)).toHaveLength(1);
    for (const one of open.splice(0)) one.close();
    await server?.close();
    for (const one of children.splice(0)) await kill(one);
    folders.remove();
  }
  expect(commits[0]).toBe(commits[1]);
}, 120_000);
