// `weft verify`, `weft withdraw` and `weft forget` against a real server: the session's own receipts, with keys and receipts of state
// folders, checked with the server and without it, true and tampered with. Only the GPU is missing: updates are drawn at random.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSafetensors, toFloat32, writeSafetensors } from '@weft/formats';
import { type KeptReceipt, NAMESPACES, type RunView } from '@weft/protocol';
import type { RunningServer } from '@weft/server';
import { httpDownloads, socketTransport, systemClock, type Trainer, VolunteerSession } from '@weft/volunteer';
import { io } from 'socket.io-client';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { AdminClient } from '../admin-client.ts';
import { fileStorage } from '../node-volunteer/file-storage.ts';
import { keyFile } from '../node-volunteer/keys.ts';
import { CLIENT } from '../node-volunteer/ports.ts';
import { keepReceipt, receiptFile } from '../node-volunteer/receipt-folder.ts';
import { openStateFolder } from '../node-volunteer/state-folder.ts';
import { startTestServer, TOKEN } from '../testing/server.ts';
import { commandLine } from '../testing.ts';
import { registerForget, registerWithdraw } from './rights.ts';
import { registerVerify } from './verify.ts';

const LIMITS = { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null };

const weft = commandLine(registerVerify, registerWithdraw, registerForget);
let root: string;
let server: RunningServer;
let admin: AdminClient;
let run: RunView;

/** Draws an update around its start, not before `may` resolves. */
const drawing = (may: Promise<unknown>): Trainer => ({
  device: () => ({
    adapter: { vendor: 'none', architecture: '', device: '', description: 'no GPU', software: true },
    limits: { maxBufferSize: 1, maxStorageBufferBindingSize: 1 },
    features: [],
    deviceMemoryGiB: null,
  }),
  async proposeRank({ settings: { ranks } }, _model, ownLimits) {
    const verdicts = ranks.map((rank) => ({ rank, fits: true, memoryBytes: 1, uploadBytes: 1, reason: 'a test' }));
    return { rank: ranks[0] ?? 1, verdicts, ownLimits, stepSeconds: null };
  },
  async train(_model, { start, grant, training }) {
    await may;
    const drawn = [...readSafetensors(start).tensors].map(([name, tensor]) => ({
      name,
      dtype: 'F32' as const,
      shape: tensor.shape,
      data: toFloat32(tensor).map((value) => value + 0.01 * (Math.random() - 0.5)),
    }));
    const counts = { steps: training.steps, targetTokens: 10, examples: 2, truncatedRows: 0, tokensPerSecond: 1 };
    return { update: writeSafetensors(drawn), rank: grant.rank, firstLoss: 5, lastLoss: 4, ...counts };
  },
  evaluate: () => Promise.reject(new Error('nobody asks')),
  close: () => undefined,
});

const folder = (name: string): string => join(root, name);

/** One delivered round of the volunteer whose state folder this is; its receipt, kept there as `weft join` keeps it. */
async function deliver(name: string, may: Promise<unknown> = Promise.resolve()): Promise<KeptReceipt> {
  const state = openStateFolder(folder(name), 'volunteer');
  const clock = systemClock();
  const socket = io(`${server.url}${NAMESPACES.volunteer}`, { transports: ['websocket'], forceNew: true });
  const session = new VolunteerSession({
    transport: socketTransport(socket, {
      clock,
      onInvalidNotice: (error) => {
        throw error;
      },
    }),
    downloads: httpDownloads(server.url),
    storage: fileStorage(state.path),
    trainer: drawing(may),
    identities: state.identities,
    clock,
    client: CLIENT,
    name,
    runId: run.runId,
    ownLimits: LIMITS,
    data: { kind: 'task', task: null },
  });
  const first = new Promise<KeptReceipt>((resolve) =>
    session.subscribe(({ receipts: [receipt], run: view }) => {
      if (receipt && view) resolve({ receipt, key: view.receiptKey, server: server.url });
    }),
  );
  const ended = session.start();
  const kept = await first;
  await session.stop();
  await ended;
  await session.close();
  state.close();
  keepReceipt(folder(name), kept);
  return kept;
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'weft-verify-'));
  server = await startTestServer(root, { selectionGraceMs: 100 });
  admin = await AdminClient.connect(server.url, TOKEN);
  run = await admin.request('admin:create', {
    name: 'Verify',
    purpose: 'Test weft verify.',
    operator: 'the tests',
    ranks: [1],
    tasks: ['rooms'],
    rounds: 2,
    goal: 4,
    minimum: 3,
    localSteps: 2,
    batchSize: 2,
    sequenceLength: 32,
    evaluate: false,
  });
  await admin.request('admin:start', { runId: run.runId });
}, 30_000);

afterAll(async () => {
  admin.close();
  await server.close();
  rmSync(root, { recursive: true, force: true });
});

const write = (name: string, value: unknown): string => {
  const path = weft.file(name);
  writeFileSync(path, JSON.stringify(value));
  return path;
};

it('takes an upload back, keeps one key a run, and proves the others’ with and without the server', async () => {
  // The round stays open as long as the last one is held.
  let letGo = (_: null): void => undefined;
  const held = new Promise<null>((resolve) => {
    letGo = resolve;
  });
  const rest = [deliver('b'), deliver('c'), deliver('d', held)];
  const taken = await deliver('a');
  const { receiptId } = taken.receipt;
  const own = ['--run', run.runId, '--state-dir', folder('a')];
  expect(existsSync(keyFile(folder('a'), 'volunteer', run.runId))).toBe(true);
  const early = await weft.document(['verify', receiptFile(folder('a'), receiptId), '--server', server.url]);
  expect(early).toMatchObject({ ok: true, receipts: [{ verdict: 'signed', fault: null }] });
  expect(early.receipts[0].notProven[0]).toContain('not committed yet');
  const withdrawn = await weft.document(['withdraw', server.url, receiptId, ...own]);
  expect(withdrawn).toMatchObject({ receiptId, withdrawnAt: expect.any(String) });
  expect(await weft.failure(['withdraw', server.url, receiptId, ...own])).toMatchObject({
    exitCode: 1,
    code: 'unknown-receipt',
  });
  // Signed for, and gone: a receipt the server does not stand by is told to be false.
  const gone = await weft.weft('verify', receiptFile(folder('a'), receiptId), '--server', server.url);
  expect([gone.exitCode, gone.out]).toEqual([1, expect.stringContaining('is FALSE')]);

  const again = await deliver('a');
  letGo(null);
  const kept = [again, ...(await Promise.all(rest))];
  const [mine] = kept;
  if (!mine) throw new Error('a receipt');
  expect(mine.receipt.clientId).toBe(taken.receipt.clientId);
  await expect
    .poll(async () => (await admin.request('admin:watch', { runId: run.runId })).rounds.length, { timeout: 10_000 })
    .toBe(1);
  const all = write('all.json', { receipts: kept });
  const everyone = await weft.document(['verify', all, '--server', server.url]);
  expect(everyone.ok).toBe(true);
  expect(everyone.receipts.map((each: { verdict: string }) => each.verdict)).toEqual(Array(4).fill('included'));
  const [key, proof] = [weft.file('key.json'), weft.file('proof.json')];
  const one = ['verify', all, '--receipt', mine.receipt.receiptId];
  await weft.document([...one, '--server', server.url, '--save-key', key, '--save-proof', proof]);
  const offline = await weft.document([...one, '--key', key, '--proof', proof]);
  expect(offline).toMatchObject({ ok: true, receipts: [{ verdict: 'included', outcome: { merged: true } }] });
  expect(offline.receipts[0].proven).toHaveLength(2);
  const text = await weft.weft(...one, '--key', key, '--proof', proof);
  expect([text.exitCode, text.out]).toEqual([0, expect.stringMatching(/proven: [\s\S]*not proven: /)]);

  // What is not so is told to be false, whatever was changed.
  const proofOf = JSON.parse(readFileSync(proof, 'utf8'));
  const other = kept[1] ?? mine;
  const lies: [unknown, string, unknown][] = [
    [{ ...mine.receipt, bytes: 1 }, key, proofOf],
    [{ ...mine.receipt, round: 2 }, key, proofOf],
    [other.receipt, key, proofOf],
    [other.receipt, key, { ...proofOf, receiptId: other.receipt.receiptId }],
    [mine.receipt, key, { ...proofOf, outcome: { merged: false, reason: 'no' } }],
    [mine.receipt, key, { ...proofOf, head: { ...proofOf.head, round: 2 } }],
    [mine.receipt, key, { ...proofOf, head: { ...proofOf.head, root: '0'.repeat(64) } }],
    [mine.receipt, key, { ...proofOf, path: proofOf.path.slice(1) }],
    [mine.receipt, write('foreign.json', { keyId: mine.key.keyId, publicKey: FOREIGN }), proofOf],
  ];
  for (const [i, [receipt, keyPath, shown]] of lies.entries()) {
    const args = [
      'verify',
      write(`lie-${i}.json`, receipt),
      '--key',
      keyPath,
      '--proof',
      write('lie-proof.json', shown),
    ];
    const { exitCode, out } = await weft.weft(...args, '--json');
    expect([i, exitCode, JSON.parse(out)]).toMatchObject([i, 1, { ok: false, receipts: [{ verdict: 'false' }] }]);
  }
}, 60_000);

it('says what is missing or no receipt', async () => {
  const bare = write('bare.json', JSON.parse(readFileSync(weft.file('all.json'), 'utf8')).receipts[0].receipt);
  expect(await weft.failure(['verify', bare])).toMatchObject({ exitCode: 2, code: 'usage' });
  expect(await weft.failure(['verify', weft.file('none.json')])).toMatchObject({ exitCode: 1, code: 'no-such-file' });
  expect(await weft.failure(['verify', write('x.json', {})])).toMatchObject({ exitCode: 1, code: 'no-receipt' });
  expect(await weft.failure(['verify', weft.file('all.json'), '--proof', 'p'])).toMatchObject({ exitCode: 2 });
  expect(await weft.failure(['verify', bare, '--server', 'http://127.0.0.1:9'])).toMatchObject({ code: 'no-answer' });
});

it('is forgotten only when it says so twice, and then has neither key nor receipts', async () => {
  const own = ['--run', run.runId, '--state-dir', folder('a')];
  expect(await weft.failure(['forget', server.url, ...own])).toMatchObject({ exitCode: 2, code: 'usage' });
  const reply = await weft.document(['forget', server.url, ...own, '--yes']);
  expect(reply).toMatchObject({ withdrawn: 0, deleted: 1, remains: expect.arrayContaining([expect.any(String)]) });
  expect(existsSync(keyFile(folder('a'), 'volunteer', run.runId))).toBe(false);
  const { rounds } = await admin.request('admin:watch', { runId: run.runId });
  expect(rounds[0]?.contributions.map(({ name }) => name).sort()).toEqual(['b', 'c', 'd', 'forgotten volunteer']);
  expect(await weft.failure(['forget', server.url, ...own, '--yes'])).toMatchObject({ exitCode: 1, code: 'identity' });
});

/** A point of the curve that is nobody's here: the base point. */
const FOREIGN = {
  kty: 'EC',
  crv: 'P-256',
  x: 'axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY',
  y: 'T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU',
};
