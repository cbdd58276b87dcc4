// What the edges refuse: pages of other origins, foreign host names, too much of anything; over HTTP and both transports of
// Socket.IO. docs/security.md lists the sizes; that list is compared with the server's here, and each size is tried.
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from 'node:http';
import { NAMESPACES, PROTOCOL_VERSION, ROUTES } from '@weft/protocol';
import { io, type Socket } from 'socket.io-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS, networkOf } from '../auth/limits.ts';
import type { RunningServer } from '../index.ts';
import { checkShape, SIZES } from '../sizes.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';

const folders = makeFolders();
let server: RunningServer;
let runId: string;

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Node's fetch sets Host and Origin by itself; this sends what it is told. */
function send(
  path: string,
  options: RequestOptions & { body?: string } = {},
  at: RunningServer = server,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { body, ...rest } = options;
    const call = httpRequest({ host: '127.0.0.1', port: at.port, path, ...rest }, (reply) => {
      const chunks: Buffer[] = [];
      reply.on('data', (chunk: Buffer) => chunks.push(chunk));
      reply.on('end', () =>
        resolve({ status: reply.statusCode ?? 0, headers: reply.headers, body: Buffer.concat(chunks).toString() }),
      );
    });
    call.on('error', reject);
    call.end(body);
  });
}

const sockets: Socket[] = [];
/** Resolves with 'connected' or what the handshake was refused with. */
async function handshake(
  transport: 'websocket' | 'polling',
  headers: Record<string, string>,
  at: RunningServer = server,
): Promise<string> {
  const socket = io(`${at.url}${NAMESPACES.volunteer}`, {
    transports: [transport],
    forceNew: true,
    reconnection: false,
    extraHeaders: headers,
  });
  sockets.push(socket);
  return new Promise((resolve) => {
    socket.on('connect', () => resolve('connected'));
    socket.on('connect_error', (error: Error & { data?: { code?: string } }) =>
      resolve(error.data?.code ?? error.message),
    );
  });
}

beforeAll(async () => {
  server = await startServer(folders, {
    publicUrl: 'https://weft.example.org',
    allowOrigins: ['https://other.example.org:8443'],
  });
  const admin = new TestAdmin(server.url);
  runId = (await admin.request('admin:create', SETTINGS)).runId;
  admin.close();
});

afterAll(async () => {
  for (const socket of sockets) socket.close();
  await server.close();
  folders.remove();
});

const own = (origin: string) => ({ origin, host: origin.replace(/^https?:\/\//, '') });

/** Node's polling client sets Host by itself, so this is its first request by hand. */
async function firstPoll(headers: Record<string, string>): Promise<string> {
  const { status, body } = await send('/socket.io/?EIO=4&transport=polling', { headers });
  return status === 200 ? 'connected' : body;
}

const HANDSHAKES = {
  websocket: (headers: Record<string, string>) => handshake('websocket', headers),
  polling: firstPoll,
};

describe.each(['websocket', 'polling'] as const)('a %s handshake', (transport) => {
  it('from a page of the server, of an allowed origin, or from no page, is taken', async () => {
    const port = server.port;
    for (const headers of [
      {},
      own(`http://localhost:${port}`),
      own(`http://127.0.0.1:${port}`),
      own('https://weft.example.org'),
      { origin: 'https://weft.example.org', host: `127.0.0.1:${port}` },
      { origin: 'https://other.example.org:8443', host: `localhost:${port}` },
    ]) {
      expect(await HANDSHAKES[transport](headers), JSON.stringify(headers)).toBe('connected');
    }
  });

  it('from any other page, or by a foreign name, is refused', async () => {
    const host = `localhost:${server.port}`;
    for (const headers of [
      { origin: 'https://evil.example', host },
      { origin: 'null', host },
      { origin: 'https://other.example.org', host },
      { origin: `http://localhost:${server.port + 1}`, host },
      own('http://evil.example'),
      { host: 'evil.example' },
    ]) {
      expect(await HANDSHAKES[transport](headers), JSON.stringify(headers)).not.toBe('connected');
    }
  });
});

describe('an HTTP request', () => {
  const signIn = (headers: Record<string, string>) =>
    send(ROUTES.sessions, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ name: 'nobody', password: 'nothing of use' }),
    });

  it('that changes something is refused from a page of another origin, and taken from a program', async () => {
    const refused = await signIn({ origin: 'https://evil.example' });
    expect([refused.status, JSON.parse(refused.body)]).toMatchObject([403, { error: { code: 'origin-refused' } }]);
    for (const origin of [`http://localhost:${server.port}`, 'https://weft.example.org']) {
      expect((await signIn({ origin, host: `localhost:${server.port}` })).status).toBe(401);
    }
    expect((await signIn({})).status).toBe(401);
  });

  it('by a name that is not this machine’s is refused on loopback, whatever it asks for', async () => {
    for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', 'user@localhost']) {
      const reply = await send(ROUTES.runs, { headers: { host } });
      expect(JSON.parse(reply.body), host).toMatchObject({ error: { code: 'origin-refused' } });
      expect(reply.status, host).toBe(403);
    }
    for (const host of ['localhost', '[::1]:8080', '127.0.0.1:1', 'weft.example.org']) {
      expect((await send(ROUTES.runs, { headers: { host } })).status, host).toBe(200);
    }
  });

  it('is answered under a policy without inline code, and with the headers that keep other sites out', async () => {
    for (const path of ['/', '/admin', ROUTES.runs, '/nothing']) {
      const { headers } = await send(path);
      const policy = String(headers['content-security-policy']);
      expect(policy).not.toMatch(/unsafe|ws:|\*/);
      for (const rule of [
        "script-src 'self'",
        "style-src 'self'",
        "script-src-attr 'none'",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
      ]) {
        expect(policy, path).toContain(rule);
      }
      expect(headers).toMatchObject({
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-resource-policy': 'same-origin',
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
      });
      expect(headers).not.toHaveProperty('set-cookie');
      expect(headers).not.toHaveProperty('access-control-allow-origin');
    }
  });
});

describe('addresses', () => {
  const strict = { limits: { requests: 5, hellos: 3, connections: 2, joins: 2 } };
  const ask = (at: RunningServer, forwarded: string) =>
    send(ROUTES.runs, { headers: { 'x-forwarded-for': forwarded } }, at);

  it('are the peer’s own, whatever it says, unless a proxy is trusted', async () => {
    const folder = makeFolders();
    const plain = await startServer(folder, strict);
    const answers = [];
    for (let i = 0; i < 8; i += 1) answers.push((await ask(plain, `10.0.0.${i}`)).status);
    expect(answers.filter((status) => status === 429)).toHaveLength(3);
    await plain.close();
    folder.remove();
  });

  it('are told by a trusted proxy, and only the one it saw itself counts', async () => {
    const folder = makeFolders();
    const behind = await startServer(folder, { ...strict, trustProxy: ['loopback'] });
    for (let i = 0; i < 8; i += 1) expect((await ask(behind, `203.0.113.${i}`)).status).toBe(200);
    const answers = [];
    // The first name is what the client made up; the last is what the proxy saw.
    for (let i = 0; i < 8; i += 1) answers.push((await ask(behind, `10.9.9.${i}, 198.51.100.7`)).status);
    expect(answers.filter((status) => status === 429)).toHaveLength(3);
    await behind.close();
    folder.remove();
  });

  it('have their connections and hellos counted, and clients their joins', async () => {
    const folder = makeFolders();
    const small = await startServer(folder, { ...strict, trustProxy: ['loopback'] });
    const boss = new TestAdmin(small.url);
    const run = (await boss.request('admin:create', SETTINGS)).runId;
    await boss.request('admin:start', { runId: run });
    const from = (address: string) => ({ 'x-forwarded-for': address });
    expect(await handshake('websocket', from('198.51.100.1'), small)).toBe('connected');
    const second = sockets.length;
    expect(await handshake('polling', from('198.51.100.1'), small)).toBe('connected');
    expect(await handshake('websocket', from('198.51.100.1'), small)).toBe('rate-limited');
    expect(await handshake('websocket', from('198.51.100.2'), small)).toBe('connected');
    sockets[second]?.close();
    await expect.poll(() => handshake('websocket', from('198.51.100.1'), small), { timeout: 5_000 }).toBe('connected');
    boss.close();

    const folder2 = makeFolders();
    const few = await startServer(folder2, { limits: { hellos: 3, joins: 2 } });
    const admin = new TestAdmin(few.url);
    const { runId: id } = await admin.request('admin:create', SETTINGS);
    await admin.request('admin:start', { runId: id });
    const volunteers = [];
    for (let i = 0; i < 3; i += 1) volunteers.push(await new TestVolunteer(few.url).enter({ runId: id }));
    const late = new TestVolunteer(few.url);
    volunteers.push(late);
    await expect(late.enter({ runId: id })).rejects.toMatchObject({
      code: 'rate-limited',
      retryAfterMs: expect.any(Number),
    });
    const [first] = volunteers;
    await first?.join(1);
    await first?.join(1);
    await expect(first?.join(1)).rejects.toMatchObject({ code: 'rate-limited', retryAfterMs: expect.any(Number) });
    await volunteers[1]?.join(1);
    for (const each of [...volunteers, admin]) each.close();
    await few.close();
    folder2.remove();
    await small.close();
    folder.remove();
  });

  it('of IPv6 count by network, however they are written', () => {
    expect(networkOf('2001:db8::1')).toBe(networkOf('2001:0db8:0:0:ffff::2'));
    expect(networkOf('2001:db8:0:1::1')).not.toBe(networkOf('2001:db8::1'));
    expect(networkOf('::1')).toBe('0:0:0:0::/64');
    expect(networkOf('::ffff:192.0.2.1')).toBe('192.0.2.1');
    expect(networkOf('fe80::1%eth0')).toBe('fe80:0:0:0::/64');
  });

  it('of proxies that are none are refused at the start', async () => {
    const folder = makeFolders();
    await expect(startServer(folder, { trustProxy: ['everywhere'] })).rejects.toMatchObject({ code: 'bad-option' });
    await expect(startServer(folder, { publicUrl: 'weft' })).rejects.toMatchObject({ code: 'bad-option' });
    folder.remove();
  });
});

describe('sizes', () => {
  it('are those docs/security.md lists', () => {
    const page = readFileSync(new URL('../../../../docs/security.md', import.meta.url), 'utf8');
    const rows = [...page.matchAll(/^\| `([a-zA-Z]+)` *\| ([\d ]+?) *\|/gm)].map(([, name, value]) => [
      name,
      Number(value?.replaceAll(' ', '')),
    ]);
    expect(Object.fromEntries(rows)).toEqual({ ...SIZES, ...LIMITS });
  });

  const headers = { 'content-type': 'application/json' };
  const errorOf = ({ status, body }: Answer) => ({
    status,
    error: (JSON.parse(body) as { error: { code: string } }).error,
  });

  it('of a body, the headers, the address', async () => {
    const body = JSON.stringify({ name: 'a', password: 'x'.repeat(SIZES.httpBodyBytes) });
    expect(errorOf(await send(ROUTES.sessions, { method: 'POST', headers, body }))).toMatchObject({
      error: { code: 'bad-message' },
    });
    // The answer may be lost to the reset that follows it: what is too much is not read to its end.
    const heavy = await send(ROUTES.runs, { headers: { 'x-long': 'x'.repeat(SIZES.httpHeaderBytes) } }).catch(
      () => null,
    );
    if (heavy) expect(errorOf(heavy)).toMatchObject({ status: 431, error: { code: 'bad-message' } });
    expect((await send(ROUTES.runs, { headers: { 'x-long': 'x'.repeat(SIZES.httpHeaderBytes / 2) } })).status).toBe(
      200,
    );
    const long = await send(`/?${'x'.repeat(SIZES.httpUrlCharacters)}`);
    expect(errorOf(long)).toMatchObject({ status: 400, error: { code: 'bad-message' } });
    expect((await send(`/?${'x'.repeat(SIZES.httpUrlCharacters - 2)}`)).status).toBe(200);
  });

  it('of a message, its depth, its values, an invite', async () => {
    const volunteer = new TestVolunteer(server.url);
    const hello = {
      protocolVersion: PROTOCOL_VERSION,
      runId,
      publicKey: volunteer.publicKey,
      name: null,
      client: { kind: 'load', version: '0' },
      operatorToken: null,
    };
    const nested = (depth: number): unknown => (depth === 0 ? 1 : { a: nested(depth - 1) });
    for (const extra of [
      { deep: nested(SIZES.messageDepth + 1) },
      { wide: Array<number>(SIZES.messageValues + 1).fill(0) },
      { invite: 'x'.repeat(SIZES.inviteCharacters + 1) },
    ]) {
      const ack = await volunteer.raw('volunteer:hello', { ...hello, ...extra });
      expect(ack).toMatchObject({ ok: false, error: { code: 'bad-message' } });
    }
    const closed = new Promise((resolve) => volunteer.socket.on('disconnect', resolve));
    volunteer.socket.emit('volunteer:hello', { ...hello, name: 'x'.repeat(SIZES.socketMessageBytes) });
    await closed;
    volunteer.close();
    // The server goes on.
    const other = await new TestVolunteer(server.url).enter({ runId });
    other.close();
  });

  it('of depth end the look at a message early, however deep it is', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 200_000; i += 1) deep = [deep];
    expect(() => checkShape(deep)).toThrow('deeper');
    expect(() => checkShape({ a: [1, { b: new Uint8Array(1_000_000) }] })).not.toThrow();
  });
});

it('a message nested beyond any stack closes its own connection at most', async () => {
  const socket = io(`${server.url}${NAMESPACES.volunteer}`, { transports: ['websocket'], forceNew: true });
  sockets.push(socket);
  await new Promise<void>((resolve) => socket.on('connect', () => resolve()));
  const depth = 200_000;
  // Past the client's own encoder, which would run out of stack itself.
  const engine = socket.io.engine as unknown as { write(packet: string): void };
  engine.write(`2${NAMESPACES.volunteer},7["volunteer:hello",${'['.repeat(depth)}${']'.repeat(depth)}]`);
  const admin = new TestAdmin(server.url, { protocolVersion: PROTOCOL_VERSION, token: ADMIN_TOKEN });
  expect((await admin.request('admin:overview', {})).runs).toHaveLength(1);
  admin.close();
});
