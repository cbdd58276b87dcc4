// Bans from outside: an operator bans a volunteer at work, who is told why, whose upload stays out of the merge, and who stays out
// after a restart until the ban is lifted.
import { writeFactors } from '@weft/formats';
import { type Lease, type ProtocolError, ROUTES } from '@weft/protocol';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RunningServer } from '../index.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { readFactors, TestVolunteer, train } from '../testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;
const people: TestVolunteer[] = [];

beforeAll(async () => {
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
  runId = (await admin.request('admin:create', { ...SETTINGS, goal: 4, minimum: 3, rounds: 2 })).runId;
  await admin.request('admin:start', { runId });
});

afterAll(async () => {
  for (const one of people) one.close();
  admin.close();
  await server.close();
  folders.remove();
});

const enter = async (identity?: TestVolunteer): Promise<TestVolunteer> => {
  const one = new TestVolunteer(server.url, identity ? { identity } : {});
  people.push(one);
  return one.enter({ runId, ...(identity ? {} : { name: `v${people.length}` }) });
};
const codeOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => null,
    (error: ProtocolError) => `${error.code}: ${error.message}`,
  );

it('ends what a banned volunteer does, tells it why, and leaves its upload out of the merge', async () => {
  const [bad, worse, ...good] = [await enter(), await enter(), await enter(), await enter(), await enter()];
  if (!bad || !worse) throw new Error('volunteers');
  const { receipt } = await bad.round(1, { size: 0.01, seed: 1 });
  const lease = await worse.lease(1);
  // All before the first ban: a round whose last lease has delivered waits for nobody.
  const leases = await Promise.all(good.map((one) => one.lease(1)));
  const { bans } = await admin.request('admin:ban', { clientId: bad.clientId, reason: 'sends noise' });
  expect(bans).toMatchObject([{ clientId: bad.clientId, name: 'v1', reason: 'sends noise', address: null }]);
  await admin.request('admin:ban', { clientId: worse.clientId, reason: 'sends more noise' });
  expect(await codeOf(bad.join(1))).toContain('banned: ');
  expect(await codeOf(bad.join(1))).toContain('sends noise');
  const gone = new Promise((resolve) => worse.socket.once('disconnect', resolve));
  expect(worse.revoked).toMatchObject([{ leaseId: lease.leaseId, reason: 'Banned: sends more noise' }]);
  const rows = (await admin.snapshot(runId)).clients.filter((row) => row.state === 'banned');
  expect(rows.map((row) => row.reason).sort()).toEqual(['sends more noise', 'sends noise']);
  for (const [i, one] of good.entries()) {
    const held = leases[i];
    if (!held) throw new Error('a lease');
    await one.send(held, await updateOf(one, held, i + 3));
  }
  const { rounds } = await admin.until(runId, (snapshot) => snapshot.rounds.length === 1);
  const contribution = rounds[0]?.contributions.find(({ sha256 }) => sha256 === receipt.sha256);
  expect(contribution).toMatchObject({ weight: 0, quarantined: 'banned: sends noise' });
  expect(rounds[0]?.contributions.filter((each) => each.quarantined === null)).toHaveLength(3);
  // In the signed record too, with the reason.
  const proof = (await (await fetch(`${server.url}${ROUTES.proof(runId, receipt.receiptId)}`)).json()) as object;
  expect(proof).toMatchObject({ outcome: { merged: false, reason: 'banned: sends noise' } });
  await gone;
}, 30_000);

it('holds over a restart, and ends when it is lifted', async () => {
  const [bad] = people;
  if (!bad) throw new Error('somebody');
  admin.close();
  await server.close();
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
  expect((await admin.request('admin:bans', {})).bans).toHaveLength(2);
  expect(await codeOf(enter(bad))).toContain('banned: ');
  await admin.request('admin:unban', { clientId: bad.clientId });
  expect(await codeOf(enter(bad))).toBeNull();
  expect(await codeOf(admin.request('admin:unban', { clientId: bad.clientId }))).toContain('unknown-client: ');
  expect((await admin.request('admin:bans', {})).bans).toHaveLength(1);
});

it('shuts an address out with the key where the operator asks for it', async () => {
  expect(await codeOf(admin.request('admin:ban', { clientId: 'never-seen', reason: 'x', address: true }))).toContain(
    'unknown-client: ',
  );
  expect(await codeOf(admin.request('admin:ban', { clientId: 'never-seen', reason: '  ' }))).toContain('bad-message: ');
  const here = await enter();
  const { bans } = await admin.request('admin:ban', { clientId: here.clientId, reason: 'a flood', address: true });
  expect(bans[0]).toMatchObject({ clientId: here.clientId, address: expect.stringContaining('127.0.0.1') });
  expect(await codeOf(enter())).toContain('banned: ');
  await admin.request('admin:unban', { clientId: here.clientId });
  expect(await codeOf(enter())).toBeNull();
});

async function updateOf(one: TestVolunteer, lease: Lease, seed: number): Promise<Uint8Array> {
  return writeFactors(train(readFactors(await one.start(lease), lease.grant), 0.01, seed).values());
}
