// A data folder copied while its server works, made again elsewhere and served from there; and what pruning leaves.
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';
import { backup, restore } from './backup.ts';
import { prune } from './prune.ts';

const folders = makeFolders();
const copy = join(folders.root, 'copy');
const elsewhere = { ...folders, dataDir: join(folders.root, 'elsewhere') };
const open: { close(): unknown }[] = [];
const keep = <T extends { close(): unknown }>(one: T): T => {
  open.push(one);
  return one;
};
const closeAll = async () => {
  for (const one of open.splice(0).reverse()) await one.close();
};
afterAll(async () => {
  await closeAll();
  folders.remove();
});

const adapterOf = async (url: string, runId: string): Promise<string> => {
  const headers = { authorization: 'Bearer a token for tests' };
  const reply = await fetch(`${url}/api/runs/${runId}/adapter/adapter_model.safetensors`, { headers });
  return Buffer.from(await reply.arrayBuffer()).toString('base64');
};

let runId: string;
let people: TestVolunteer[];
let delivered: Awaited<ReturnType<TestVolunteer['round']>>;
let before: { rounds: unknown; adapter: string };

beforeAll(async () => {
  const server = keep(await startServer(folders));
  const admin = keep(new TestAdmin(server.url));
  ({ runId } = await admin.request('admin:create', { ...SETTINGS, rounds: 3 }));
  await admin.request('admin:start', { runId });
  people = await Promise.all([1, 2, 3].map(() => keep(new TestVolunteer(server.url)).enter({ runId })));
  await Promise.all(people.map((one, i) => one.round(2, { size: 0.01, seed: i })));
  await admin.until(runId, ({ rounds, round }) => rounds.length === 1 && round.phase === 'selecting');
  const [first, ...others] = people as [TestVolunteer, ...TestVolunteer[]];
  const round = first.round(2, { size: 0.01, seed: 7 });
  await Promise.all(others.map((one) => one.lease(1)));
  delivered = await round;
  await admin.until(runId, ({ round: { phase } }) => phase === 'training');
  before = { rounds: (await admin.snapshot(runId)).rounds, adapter: await adapterOf(server.url, runId) };
  const copied = backup(folders.dataDir, copy, new Date());
  expect(copied).toMatchObject({ runs: [runId], damaged: [] });
  // The server goes on as if nothing had been.
  expect((await admin.snapshot(runId)).round).toMatchObject({ round: 2, phase: 'training', uploaded: 1 });
  await closeAll();
}, 60_000);

describe('a backup of a running server', () => {
  it('becomes the same server elsewhere, in the middle of the same round', async () => {
    const restored = restore(copy, elsewhere.dataDir);
    expect(restored.runs).toEqual([runId]);
    expect(existsSync(join(elsewhere.dataDir, 'lock'))).toBe(false);
    const server = keep(await startServer(elsewhere));
    const admin = keep(new TestAdmin(server.url));
    const { rounds, round } = await admin.snapshot(runId);
    expect(rounds).toEqual(before.rounds);
    expect(round).toMatchObject({ round: 2, phase: 'training', uploaded: 1, training: 2 });
    expect(await adapterOf(server.url, runId)).toBe(before.adapter);
    // The same people come to the new place: receipts hold, and the round ends.
    const [first, ...others] = await Promise.all(
      people.map((one) => keep(new TestVolunteer(server.url, { identity: one })).enter({ runId })),
    );
    expect(await first?.send(delivered.lease, delivered.bytes)).toEqual(delivered.receipt);
    await Promise.all(others.map((one, i) => one.round(1, { size: 0.01, seed: i })));
    const ended = await admin.until(runId, (snapshot) => snapshot.rounds.length === 2);
    expect(ended.rounds[1]?.contributions.map(({ sha256 }) => sha256)).toContain(delivered.receipt.sha256);
    await closeAll();
  }, 60_000);

  it('is readable by its owner alone, and so is what is made from it, whatever happened to its permissions', () => {
    const mode = (...parts: string[]) => statSync(join(...parts)).mode & 0o777;
    const secrets = ['keys/receipts.json', 'invites/key.pem'];
    expect(mode(folders.dataDir), 'the folder a server makes').toBe(0o700);
    expect(mode(copy)).toBe(0o700);
    for (const path of secrets) expect(mode(copy, path), path).toBe(0o600);
    for (const path of secrets) chmodSync(join(copy, path), 0o644);
    const again = join(folders.root, 'permissions');
    restore(copy, again);
    expect(mode(again)).toBe(0o700);
    for (const path of secrets) expect(mode(again, path), path).toBe(0o600);
  });

  it('goes into no folder that has something in it, and comes from no other kind of folder', () => {
    expect(() => backup(folders.dataDir, copy, new Date())).toThrow(
      expect.objectContaining({ code: 'folder-not-empty' }),
    );
    expect(() => restore(copy, folders.dataDir)).toThrow(expect.objectContaining({ code: 'folder-not-empty' }));
    expect(() => restore(folders.pagesDir, join(folders.root, 'x'))).toThrow(/no backup.json/);
    expect(() => backup(folders.pagesDir, join(folders.root, 'x'), new Date())).toThrow(
      expect.objectContaining({ code: 'data-dir-missing' }),
    );
    expect(existsSync(join(folders.root, 'x'))).toBe(false);
  });

  it('that was damaged is refused whole, naming the file', () => {
    const path = join(copy, 'runs', runId, 'rounds', '1.json');
    const whole = readFileSync(path);
    writeFileSync(path, Buffer.concat([whole.subarray(0, 100), Buffer.from('!'), whole.subarray(101)]));
    const target = join(folders.root, 'damaged');
    expect(() => restore(copy, target)).toThrow(
      expect.objectContaining({ code: 'backup-damaged', message: expect.stringContaining('rounds/1.json') }),
    );
    expect(existsSync(target)).toBe(false);
    writeFileSync(path, whole);
  });
});

describe('pruning', () => {
  const at = (hours: number) => new Date(Date.now() + hours * 3_600_000);
  const options = { retentionMs: 24 * 3_600_000, dryRun: false };

  it('shows what it would free without touching it, then frees it, and the run goes on', async () => {
    const orphan = join(folders.dataDir, 'globals', 'ab', 'ab'.repeat(32));
    mkdirSync(join(folders.dataDir, 'globals', 'ab'), { recursive: true });
    writeFileSync(orphan, 'a merge that came too late');
    const listed = () => readdirSync(folders.dataDir, { recursive: true, encoding: 'utf8' }).sort();
    const files = listed();
    const shown = await prune(folders.dataDir, { ...options, now: at(48), dryRun: true });
    expect(listed()).toEqual(files);
    expect(shown).toMatchObject({ uploads: { files: 3 }, orphans: { files: 1, bytes: 26 } });
    expect(shown.starts.files).toBeGreaterThan(0);
    expect(await prune(folders.dataDir, { ...options, now: at(48) })).toEqual(shown);
    expect(existsSync(orphan)).toBe(false);
    const none = { files: 0, bytes: 0 };
    const again = await prune(folders.dataDir, { ...options, now: at(48) });
    expect(again).toEqual({ uploads: none, starts: none, orphans: none, temporary: none });

    const lock = join(folders.dataDir, 'lock');
    writeFileSync(lock, `${process.ppid}\n`);
    await expect(prune(folders.dataDir, { ...options, now: at(0) })).rejects.toMatchObject({ code: 'data-dir-locked' });
    rmSync(lock);

    const server = keep(await startServer(folders));
    const admin = keep(new TestAdmin(server.url));
    expect((await admin.snapshot(runId)).rounds).toEqual(before.rounds);
    expect(await adapterOf(server.url, runId)).toBe(before.adapter);
    const others = await Promise.all(
      people.slice(1).map((one) => keep(new TestVolunteer(server.url, { identity: one })).enter({ runId })),
    );
    await Promise.all(others.map((one, i) => one.round(1, { size: 0.01, seed: i })));
    const ended = await admin.until(runId, (snapshot) => snapshot.rounds.length === 2);
    expect(ended.rounds[1]?.contributions.map(({ sha256 }) => sha256)).toContain(delivered.receipt.sha256);
  }, 60_000);
});
