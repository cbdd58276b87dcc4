// Everything a peer can get wrong, over a real socket: each is answered with an error that names it, the server and the
// round go on, and the same lease can still deliver.
import { type LoraFactors, writeFactors, writeSafetensors } from '@weft/formats';
import { type Lease, PROTOCOL_VERSION, type ProtocolError, ROUTES, type UploadBegin } from '@weft/protocol';
import { io } from 'socket.io-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from './index.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from './testing/server.ts';
import { readFactors, sha256, TestVolunteer, train } from './testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;
let volunteer: TestVolunteer;
let others: TestVolunteer[];
let lease: Lease;
let good: Uint8Array;
let factors: LoraFactors[];

beforeAll(async () => {
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
  runId = (await admin.request('admin:create', { ...SETTINGS, name: 'Bad input', rounds: 1 })).runId;
  await admin.request('admin:start', { runId });
  volunteer = await new TestVolunteer(server.url).enter({ runId });
  others = await Promise.all([1, 2].map(() => new TestVolunteer(server.url).enter({ runId })));
  lease = await volunteer.lease(2);
  factors = [...train(readFactors(await volunteer.start(lease), lease.grant), 0.01, 1).values()];
  good = writeFactors(factors);
});

afterAll(async () => {
  for (const socket of [volunteer, ...others, admin]) socket.close();
  await server.close();
  folders.remove();
});

/** The error a promise ends with. */
const failure = async (work: Promise<unknown>): Promise<ProtocolError> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ name: 'ProtocolError' });
  return error as ProtocolError;
};

const changed = (change: (first: LoraFactors) => Partial<LoraFactors>): Uint8Array =>
  writeFactors(factors.map((matrix, i) => (i === 0 ? { ...matrix, ...change(matrix) } : matrix)));

describe('an upload', () => {
  const announced: [string, Partial<UploadBegin>][] = [
    ['upload-run', { runHash: '0'.repeat(64) }],
    ['upload-start', { startHash: '0'.repeat(64) }],
    ['upload-too-large', { bytes: 10_000_000 }],
    ['upload-tokens', { targetTokens: 2 * 4 * 64 + 1 }],
    ['upload-rank', { rank: 1 }],
    ['upload-tokens', { steps: 3 }],
    ['upload-tokens', { examples: 9 }],
    ['unknown-lease', { leaseId: 'not-a-lease' }],
    ['bad-message', { sha256: 'short' }],
    ['bad-message', { dtype: 'F16' as 'F32' }],
  ];
  it.each(announced)('is refused with %s before a byte is taken: %o', async (code, claim) => {
    const error = await failure(volunteer.request('upload:begin', volunteer.announcement(lease, good, claim)));
    expect(error.code).toBe(code);
    expect(error.message.length).toBeGreaterThan(20);
  });

  const contents: [string, () => Uint8Array, RegExp][] = [
    [
      'upload-rank',
      () => changed((m) => ({ rank: 1, a: m.a.slice(0, m.in), b: m.b.slice(0, m.out) })),
      /rank 1; granted was rank 2/,
    ],
    [
      'upload-shape',
      () => changed((m) => ({ in: m.in - 1, a: m.a.slice(0, 2 * (m.in - 1)) })),
      /granted was \[2, 172\]/,
    ],
    ['upload-shape', () => writeFactors(factors.slice(1)), /lacks base_model/],
    ['upload-shape', () => changed(() => ({ module: 'model.layers.0.self_attn.x_proj' })), /x_proj|lacks/],
    ['upload-non-finite', () => changed((m) => ({ a: m.a.with(3, Number.NaN) })), /NaN at element 3/],
    ['upload-non-finite', () => changed((m) => ({ b: m.b.with(0, Number.POSITIVE_INFINITY) })), /Infinity/],
    ['upload-norm', () => changed((m) => ({ b: m.b.map(() => 1000) })), /lora_B/],
    ['upload-dtype', () => writeFactors(factors, 'F16'), /F16/],
    ['upload-format', () => good.slice(0, -4), /safetensors/],
    ['upload-format', () => new Uint8Array(64).fill(0xff), /header/],
    [
      'upload-shape',
      () => writeSafetensors([{ name: 'stray', dtype: 'F32', shape: [1], data: new Float32Array(1) }]),
      /lacks/,
    ],
  ];
  it.each(contents)('is refused with %s for what it holds (%#)', async (code, make, words) => {
    const error = await failure(volunteer.send(lease, make()));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
  });

  it('is refused with upload-hash when the bytes are not the announced ones', async () => {
    const other = good.slice();
    other[other.length - 1] = (other[other.length - 1] ?? 0) ^ 1;
    expect((await failure(volunteer.send(lease, other, { sha256: sha256(good) }))).code).toBe('upload-hash');
  });

  it('is refused with upload-offset when a chunk leaves a hole or it is committed too early', async () => {
    await volunteer.request('upload:begin', volunteer.announcement(lease, good));
    const bytes = good.slice(100, 200);
    expect(
      (await failure(volunteer.request('upload:chunk', { leaseId: lease.leaseId, offset: 100, bytes }))).code,
    ).toBe('upload-offset');
    const early = await failure(volunteer.request('upload:commit', { leaseId: lease.leaseId, sha256: sha256(good) }));
    expect(early.code).toBe('upload-offset');
  });

  it('is refused with upload-too-large when more bytes come than were announced', async () => {
    await volunteer.request('upload:begin', volunteer.announcement(lease, good, { bytes: 10 }));
    const error = await failure(
      volunteer.request('upload:chunk', { leaseId: lease.leaseId, offset: 0, bytes: good.slice(0, 20) }),
    );
    expect(error.code).toBe('upload-too-large');
  });

  it('of another client’s lease is refused', async () => {
    const [other] = others;
    const begin = volunteer.announcement(lease, good);
    expect((await failure((other as TestVolunteer).request('upload:begin', begin))).code).toBe('unknown-lease');
  });
});

describe('a message', () => {
  it('nobody knows is answered with unknown-event', async () => {
    expect(await volunteer.raw('round:steal', {})).toMatchObject({ ok: false, error: { code: 'unknown-event' } });
    expect(await volunteer.raw('toString', {})).toMatchObject({ ok: false, error: { code: 'unknown-event' } });
  });

  it.each([
    ['round:join', { rank: 4 }],
    ['lease:heartbeat', null],
    ['upload:chunk', { leaseId: 'x', offset: 0, bytes: 'text' }],
    ['volunteer:prove', { signature: 7 }],
  ])('that does not match its schema is answered with bad-message: %s', async (event, payload) => {
    expect(await volunteer.raw(event, payload)).toMatchObject({ ok: false, error: { code: 'bad-message' } });
  });

  it('before hello is out of order', async () => {
    const stranger = new TestVolunteer(server.url);
    expect((await failure(stranger.join(1))).code).toBe('out-of-order');
    expect((await failure(stranger.request('volunteer:prove', { ...stranger.proof(''), signature: 'x' }))).code).toBe(
      'out-of-order',
    );
    stranger.close();
  });

  it('of another protocol version is told which side to update, whatever else it says', async () => {
    const stranger = new TestVolunteer(server.url);
    const old = await stranger.raw('volunteer:hello', { protocolVersion: PROTOCOL_VERSION - 1, greeting: 'hi' });
    expect(old).toMatchObject({
      ok: false,
      error: { code: 'protocol-version', message: expect.stringContaining('Reload the page') },
    });
    const newer = await stranger.raw('volunteer:hello', { protocolVersion: PROTOCOL_VERSION + 1 });
    expect(newer).toMatchObject({ error: { message: expect.stringContaining('The server is the older one') } });
    stranger.close();
  });

  it('signed by another key is refused', async () => {
    const stranger = new TestVolunteer(server.url);
    const { challenge } = await stranger.request('volunteer:hello', {
      protocolVersion: PROTOCOL_VERSION,
      runId,
      name: null,
      client: { kind: 'load', version: '0' },
      operatorToken: null,
    });
    const foreign = { publicKey: volunteer.publicKey, signature: stranger.sign(challenge) };
    expect((await failure(stranger.request('volunteer:prove', foreign))).code).toBe('bad-signature');
    expect((await failure(stranger.request('volunteer:prove', volunteer.proof(challenge)))).code).toBe('out-of-order');
    stranger.close();
  });

  it('that asks too often is told to wait', async () => {
    const stranger = new TestVolunteer(server.url);
    const answers = await Promise.all(Array.from({ length: 1200 }, () => stranger.raw('round:leave', {})));
    const limited = answers.filter((answer) => !answer.ok && answer.error.code === 'rate-limited');
    expect(limited.length).toBeGreaterThan(0);
    expect(limited[0]).toMatchObject({ error: { retryAfterMs: expect.any(Number) } });
    stranger.close();
  });
});

describe('a wish to join', () => {
  it.each([
    ['rank-refused', 3, { kind: 'task', task: null }],
    ['unknown-task', 1, { kind: 'task', task: 'astronomy' }],
    ['own-data-refused', 1, { kind: 'own', consent: true, examples: 5 }],
  ] as const)('is refused with %s', async (code, rank, data) => {
    expect((await failure((others[0] as TestVolunteer).join(rank, data))).code).toBe(code);
  });

  it('for an unknown run is refused', async () => {
    const stranger = new TestVolunteer(server.url);
    expect((await failure(stranger.enter({ runId: 'no-such-run' }))).code).toBe('unknown-run');
    stranger.close();
  });
});

describe('the operator’s doors', () => {
  it('take nobody without the token', async () => {
    const stranger = new TestAdmin(server.url, { protocolVersion: PROTOCOL_VERSION, token: 'guess' });
    expect((await failure(stranger.request('admin:overview', {}))).code).toBe('unauthorised');
    stranger.close();
    const old = new TestAdmin(server.url, { protocolVersion: 0, token: ADMIN_TOKEN });
    expect((await failure(old.request('admin:overview', {}))).code).toBe('protocol-version');
    old.close();
    const evaluator = new TestVolunteer(server.url);
    expect((await failure(evaluator.enter({ runId, operatorToken: 'guess' }))).code).toBe('unauthorised');
    evaluator.close();
    expect((await failure(volunteer.request('evaluation:next', {}))).code).toBe('evaluation-refused');
    const reply = await fetch(server.url + ROUTES.adapter(runId, 'adapter.zip'));
    expect([reply.status, await reply.json()]).toMatchObject([401, { error: { code: 'unauthorised' } }]);
  });

  it.each([
    [{ goal: 2, minimum: 2 }, /goal/],
    [{ tasks: ['astronomy'] }, /astronomy/],
    [{ ranks: [1, 500] }, /500/],
    [{ sequenceLength: 4096 }, /512/],
  ])('refuse settings that cannot work: %o', async (settings, words) => {
    const error = await failure(admin.request('admin:create', { ...SETTINGS, ...settings }));
    expect(error.code).toBe('bad-settings');
    expect(error.message).toMatch(words);
  });

  it('refuse settings that contradict each other, and commands that do not fit', async () => {
    expect((await failure(admin.request('admin:create', { ...SETTINGS, ranks: [4, 2] }))).code).toBe('bad-message');
    expect((await failure(admin.request('admin:start', { runId }))).code).toBe('run-state');
    expect((await failure(admin.request('admin:watch', { runId: 'none' }))).code).toBe('unknown-run');
  });

  it('refuse a message that is too large by closing the line', async () => {
    const socket = io(`${server.url}/volunteer`, { transports: ['websocket'], forceNew: true, reconnection: false });
    const closed = new Promise((resolve) => socket.on('disconnect', resolve));
    socket.emit('upload:chunk', { leaseId: 'x', offset: 0, bytes: new Uint8Array(600_000) });
    expect(await closed).toMatch(/transport/);
  });
});

it('and after all that the round goes on and commits', async () => {
  const receipt = await volunteer.send(lease, good);
  expect(receipt.bytes).toBe(good.length);
  // The same upload again gets the same receipt; another one is too late.
  expect(await volunteer.send(lease, good)).toEqual(receipt);
  const other = changed((m) => ({ a: m.a.map((value) => value / 2) }));
  expect((await failure(volunteer.send(lease, other))).code).toBe('already-committed');
  await Promise.all(others.map((v, i) => v.round(i === 0 ? 1 : 4, { size: 0.01, seed: i + 5 })));
  const ended = await admin.until(runId, ({ run }) => run.state === 'completed');
  expect(ended.rounds[0]).toMatchObject({ outcome: 'committed', contributions: [{}, {}, {}] });
  expect((await failure(volunteer.join(1))).code).toBe('run-not-open');
});
