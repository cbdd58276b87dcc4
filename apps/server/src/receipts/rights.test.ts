// What a volunteer may ask of its own work, through sockets: taking back what is not merged, and being forgotten; over restarts too.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Contributor, FORGOTTEN_NAME, ProtocolError, ROUTES, type RunSettingsInput } from '@weft/protocol';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { RunningServer } from '../index.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';

let folders: ReturnType<typeof makeFolders>;
let server: RunningServer;
let admin: TestAdmin;
let people: TestVolunteer[] = [];

beforeEach(async () => {
  folders = makeFolders();
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
});

afterEach(async () => {
  for (const one of people) one.close();
  people = [];
  admin.close();
  await server.close();
  folders.remove();
});

async function create(settings: Partial<RunSettingsInput>): Promise<string> {
  const { runId } = await admin.request('admin:create', { ...SETTINGS, ...settings });
  await admin.request('admin:start', { runId });
  return runId;
}

async function enter(runId: string, name: string): Promise<TestVolunteer> {
  const one = await new TestVolunteer(server.url).enter({ runId, name });
  people.push(one);
  return one;
}

async function restart(): Promise<void> {
  admin.close();
  for (const one of people) one.close();
  await server.close();
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
}

const failure = async (work: Promise<unknown>): Promise<ProtocolError> => {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ProtocolError)) throw new Error(`no ProtocolError but ${String(error)}`);
  return error;
};

/** Every file below the data folder that holds any of these words, the index of the database apart. */
function filesWith(words: readonly string[]): string[] {
  return readdirSync(folders.dataDir, { recursive: true, encoding: 'utf8' }).filter((path) => {
    const whole = join(folders.dataDir, path);
    if (path.startsWith('database') || !statSync(whole).isFile()) return false;
    const text = path + readFileSync(whole, 'utf8');
    return words.some((word) => text.includes(word));
  });
}

const blobPath = (sha256: string): string => join(folders.dataDir, 'uploads', sha256.slice(0, 2), sha256);

it('takes back an upload: bytes gone, counts right, place open again, and the round goes on', async () => {
  const runId = await create({ rounds: 1 });
  const [a, b, c] = [await enter(runId, 'a'), await enter(runId, 'b'), await enter(runId, 'c')];
  const held = await Promise.all([b.lease(2), c.lease(4)]);
  const { receipt, lease, bytes } = await a.round(1, { size: 0.01, seed: 1 });
  expect(existsSync(blobPath(receipt.sha256))).toBe(true);
  // Nobody takes back the work of another, or what there is not.
  expect((await failure(b.request('upload:withdraw', { receiptId: receipt.receiptId }))).code).toBe('unknown-receipt');
  expect((await failure(a.request('upload:withdraw', { receiptId: 'none' }))).code).toBe('unknown-receipt');
  const reply = await a.request('upload:withdraw', { receiptId: receipt.receiptId });
  expect(reply.receiptId).toBe(receipt.receiptId);
  expect(existsSync(blobPath(receipt.sha256))).toBe(false);
  const { round } = await admin.snapshot(runId);
  expect(round).toMatchObject({ leased: 3, training: 2, uploaded: 0, dropped: 1 });
  expect((await failure(a.request('upload:withdraw', { receiptId: receipt.receiptId }))).code).toBe('unknown-receipt');
  expect((await failure(a.request('upload:begin', a.announcement(lease, bytes)))).code).toBe('lease-expired');

  await restart();
  expect((await admin.snapshot(runId)).round).toMatchObject({ training: 2, uploaded: 0, dropped: 1 });
  expect(existsSync(blobPath(receipt.sha256))).toBe(false);
  const again = await Promise.all(
    [a, b, c].map(async (identity) => {
      const one = await new TestVolunteer(server.url, { identity }).enter({ runId });
      people.push(one);
      return one;
    }),
  );
  expect((await again[1]?.lease(2))?.leaseId).toBe(held[0]?.leaseId);
  const sent = await Promise.all(again.map((one, i) => one.round([1, 2, 4][i] ?? 1, { size: 0.01, seed: i + 5 })));
  const { rounds } = await admin.until(runId, (snapshot) => snapshot.rounds.length === 1);
  const merged = rounds[0]?.contributions.map(({ sha256 }) => sha256) ?? [];
  expect(merged.sort()).toEqual(sent.map((each) => each.receipt.sha256).sort());
  expect(merged).not.toContain(receipt.sha256);
  const late = await failure(
    again[0]?.request('upload:withdraw', { receiptId: sent[0]?.receipt.receiptId ?? '' }) ?? Promise.resolve(),
  );
  expect(late.code).toBe('already-merged');
});

it('keeps equal bytes of another volunteer', async () => {
  const runId = await create({ goal: 4, rounds: 1 });
  const [a, b] = [await enter(runId, 'a'), await enter(runId, 'b')];
  const first = await a.round(1, { size: 0, seed: 1 });
  const second = await b.round(1, { size: 0, seed: 1 });
  expect(second.receipt.sha256).toBe(first.receipt.sha256);
  await a.request('upload:withdraw', { receiptId: first.receipt.receiptId });
  expect(existsSync(blobPath(second.receipt.sha256))).toBe(true);
  await b.request('upload:withdraw', { receiptId: second.receipt.receiptId });
  expect(existsSync(blobPath(second.receipt.sha256))).toBe(false);
});

it('abandons the round when too few are left', async () => {
  const runId = await create({ rounds: 1 });
  const [a, b, c] = [await enter(runId, 'a'), await enter(runId, 'b'), await enter(runId, 'c')];
  const leases = await Promise.all([b.lease(1), c.lease(1)]);
  const { receipt } = await a.round(1, { size: 0.01, seed: 1 });
  await admin.until(runId, ({ round }) => round.phase === 'training');
  for (const [i, one] of [b, c].entries()) {
    await one.request('lease:release', { leaseId: leases[i]?.leaseId ?? '', reason: 'stopped' });
  }
  await admin.until(runId, ({ rounds }) => rounds[0]?.outcome === 'abandoned');
  // Never merged, so it can still be taken back.
  await a.request('upload:withdraw', { receiptId: receipt.receiptId });
  expect(existsSync(blobPath(receipt.sha256))).toBe(false);
});

it('forgets a volunteer: nothing names it on disk or in the index, counts stay, and no restart brings it back', async () => {
  const runId = await create({ rounds: 3 });
  const name = 'Ada of Arden';
  const ada = await enter(runId, name);
  const others = [await enter(runId, 'b'), await enter(runId, 'c')];
  const everybody = [ada, ...others];
  const first = await Promise.all(everybody.map((one, i) => one.round(1, { size: 0.01, seed: i + 1 })));
  await admin.until(runId, ({ rounds }) => rounds.length === 1);
  const rest = await Promise.all(others.map((one) => one.lease(1)));
  const second = await ada.round(1, { size: 0.01, seed: 7 });
  const theirs = await fetch(`${server.url}${ROUTES.proof(runId, first[1]?.receipt.receiptId ?? '')}`);
  expect(theirs.status).toBe(200);
  const words = [name, ada.clientId, first[0]?.receipt.receiptId ?? '', second.receipt.receiptId];
  expect(filesWith(words).length).toBeGreaterThan(3);

  const reply = await ada.request('volunteer:forget', {});
  expect(reply).toMatchObject({ withdrawn: 1, deleted: 2 });
  expect(reply.remains.join(' ')).toContain('merged');
  expect(filesWith(words)).toEqual([]);
  for (const { receipt } of [second, ...first.slice(0, 1)]) expect(existsSync(blobPath(receipt.sha256))).toBe(false);
  expect(existsSync(blobPath(first[1]?.receipt.sha256 ?? ''))).toBe(true);
  expect((await failure(ada.join(1))).code).toBe('out-of-order');
  const snapshot = await admin.snapshot(runId);
  expect(JSON.stringify(snapshot)).not.toContain(ada.clientId);
  expect(JSON.stringify(snapshot)).not.toContain(name);
  expect(snapshot.rounds[0]?.contributions.map((each) => each.name).sort()).toEqual(['b', 'c', FORGOTTEN_NAME]);
  expect(snapshot.round).toMatchObject({ uploaded: 0, training: 2 });

  const contributors = async (): Promise<Contributor[]> => {
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
    const reply = await fetch(`${server.url}${ROUTES.contributors(runId)}`, { headers });
    return ((await reply.json()) as { contributors: Contributor[] }).contributors;
  };
  const listed = await contributors();
  expect(listed.map((each) => each.name).sort()).toEqual(['b', 'c', FORGOTTEN_NAME]);
  expect(listed.find((each) => each.name === FORGOTTEN_NAME)).toMatchObject({ rounds: 1, targetTokens: 100 });
  expect(listed.map((each) => each.clientId)).not.toContain(ada.clientId);

  await restart();
  expect(filesWith(words)).toEqual([]);
  expect(await contributors()).toEqual(listed);
  // The tree of the round still proves the others' uploads, and the round goes on with who is left.
  const proof = await fetch(`${server.url}${ROUTES.proof(runId, first[1]?.receipt.receiptId ?? '')}`);
  expect(await proof.json()).toEqual(await theirs.json());
  expect((await fetch(`${server.url}${ROUTES.proof(runId, first[0]?.receipt.receiptId ?? '')}`)).status).toBe(404);
  const back = await new TestVolunteer(server.url, { identity: others[0] as TestVolunteer }).enter({ runId });
  people.push(back);
  expect((await back.lease(1)).leaseId).toBe(rest[0]?.leaseId);
});
