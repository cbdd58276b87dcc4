// Receipts from outside: signed when they come, proven by HTTP once their round is committed, refuted when anything is changed; the
// server's key is made once and kept.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  faultOfProof,
  type InclusionProof,
  inclusionProofSchema,
  isReceiptSigned,
  keyIdOf,
  type Receipt,
  type ReceiptKey,
  ROUTES,
  receiptKeySchema,
} from '@weft/protocol';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RunningServer } from '../index.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;
let receipts: Receipt[];
let key: ReceiptKey;
let people: TestVolunteer[];

const getJson = async (path: string): Promise<{ status: number; body: unknown }> => {
  const reply = await fetch(`${server.url}${path}`);
  return { status: reply.status, body: await reply.json() };
};
const proofOf = async (receipt: Receipt): Promise<InclusionProof> =>
  inclusionProofSchema.parse((await getJson(ROUTES.proof(runId, receipt.receiptId))).body);

beforeAll(async () => {
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
  runId = (await admin.request('admin:create', { ...SETTINGS, goal: 5, minimum: 4, rounds: 1 })).runId;
  await admin.request('admin:start', { runId });
  people = await Promise.all([0, 1, 2, 3, 4].map(() => new TestVolunteer(server.url).enter({ runId })));
  const early = people.slice(0, 4);
  const rounds = await Promise.all(early.map((one, i) => one.round(1, { size: 0.01, seed: i + 1 })));
  receipts = rounds.map(({ receipt }) => receipt);
  key = receiptKeySchema.parse((await getJson(ROUTES.key)).body);
});

afterAll(async () => {
  for (const one of people) one.close();
  admin.close();
  await server.close();
  folders.remove();
});

it('signs what it acknowledges, and every field of it', async () => {
  expect(await keyIdOf(key.publicKey)).toBe(key.keyId);
  expect((await admin.snapshot(runId)).run.receiptKey).toEqual(key);
  for (const receipt of receipts) {
    expect(await isReceiptSigned(receipt, key)).toBe(true);
    const changes: Partial<Receipt>[] = [
      { bytes: receipt.bytes + 1 },
      { round: 2 },
      { targetTokens: 1 },
      { runId: 'another' },
      { sha256: receipt.sha256.replace(/^./, (digit) => (digit === '0' ? '1' : '0')) },
      { acceptedAt: '2020-01-01T00:00:00.000Z' },
      { keyId: 'other' },
      { signature: receipt.signature.slice(0, -4) },
    ];
    for (const change of changes) expect(await isReceiptSigned({ ...receipt, ...change }, key)).toBe(false);
  }
});

it('has no proof before the round is committed, and says when to ask again', async () => {
  const { status, body } = await getJson(ROUTES.proof(runId, receipts[0]?.receiptId ?? ''));
  expect([status, body]).toMatchObject([409, { error: { code: 'no-proof', retryAfterMs: expect.any(Number) } }]);
  const unknown = await getJson(ROUTES.proof(runId, 'nothing'));
  expect([unknown.status, unknown.body]).toMatchObject([404, { error: { code: 'unknown-receipt' } }]);
});

it('proves each upload of a committed round, the quarantined one included, and nothing else', async () => {
  const copy = people[4];
  if (!copy) throw new Error('five volunteers');
  // A change of another size by far, and yet what the granted steps could have made: quarantined at the merge.
  receipts.push((await copy.round(1, { size: 1, seed: 9 })).receipt);
  const { rounds } = await admin.until(runId, (snapshot) => snapshot.rounds.length === 1);
  const record = rounds[0];
  expect(record?.tree).toMatchObject({ runId, round: 1, version: 1, size: 5, keyId: key.keyId });
  const proofs = await Promise.all(receipts.map(proofOf));
  for (const [i, receipt] of receipts.entries()) {
    const proof = proofs[i];
    if (!proof) throw new Error('a proof each');
    expect(await faultOfProof(receipt, proof, key.publicKey)).toBeNull();
    const quarantined = record?.contributions.find(({ sha256 }) => sha256 === receipt.sha256)?.quarantined ?? null;
    expect(proof.outcome).toEqual({ merged: quarantined === null, reason: quarantined });
    const other = proofs[(i + 1) % proofs.length];
    if (!other) throw new Error('another');
    const faults: [Receipt, InclusionProof][] = [
      [receipt, other],
      [receipt, { ...other, receiptId: receipt.receiptId }],
      [{ ...receipt, bytes: receipt.bytes + 1 }, proof],
      [receipt, { ...proof, outcome: { merged: !proof.outcome.merged, reason: null } }],
      [receipt, { ...proof, index: (proof.index + 1) % 5 }],
      [receipt, { ...proof, head: { ...proof.head, round: 2 } }],
      [
        { ...receipt, round: 2 },
        { ...proof, head: { ...proof.head, round: 2 } },
      ],
      [receipt, { ...proof, head: { ...proof.head, size: 4 } }],
    ];
    for (const [changed, shown] of faults) expect(await faultOfProof(changed, shown, key.publicKey)).not.toBeNull();
    const stranger = new TestVolunteer(server.url);
    expect(await faultOfProof(receipt, proof, stranger.publicKey)).toContain('not signed');
    stranger.close();
  }
  expect(proofs.map(({ outcome }) => outcome.merged)).toEqual([true, true, true, true, false]);
});

it('keeps its key and its proofs over a restart', async () => {
  const path = join(folders.dataDir, 'keys', 'receipts.json');
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const before = readFileSync(path, 'utf8');
  const proofs = await Promise.all(receipts.map(proofOf));
  await server.close();
  server = await startServer(folders);
  expect(readFileSync(path, 'utf8')).toBe(before);
  expect((await getJson(ROUTES.key)).body).toEqual(key);
  expect(await Promise.all(receipts.map(proofOf))).toEqual(proofs);
});
