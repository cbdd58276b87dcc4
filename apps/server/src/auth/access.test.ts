// Accounts, sessions and roles of admins, from outside: over HTTP and the /admin socket of a real server.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ADMIN_REQUESTS,
  PROTOCOL_VERSION,
  ROUTES,
  roleReaches,
  type SignInReply,
  signInReplySchema,
} from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer, ServerOptions } from '../index.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';

const folders = makeFolders();
const PASSWORD = 'correct horse battery';
const options: Partial<ServerOptions> = { limits: { signIns: 40 } };
let server: RunningServer;
let owner: TestAdmin;
let runId: string;

const as = (token: string) => new TestAdmin(server.url, { protocolVersion: PROTOCOL_VERSION, token });

async function post(name: string, password: string): Promise<Response> {
  const body = JSON.stringify({ name, password });
  return fetch(server.url + ROUTES.sessions, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
}

async function signIn(name: string, password = PASSWORD): Promise<SignInReply> {
  const reply = await post(name, password);
  expect(reply.status).toBe(200);
  return signInReplySchema.parse(await reply.json());
}

const request = (method: string, path: string, token: string) =>
  fetch(server.url + path, { method, headers: { authorization: `Bearer ${token}` } });

beforeAll(async () => {
  server = await startServer(folders, options);
  owner = new TestAdmin(server.url);
  runId = (await owner.request('admin:create', { ...SETTINGS, rounds: 1 })).runId;
  for (const [name, role] of [
    ['vera', 'viewer'],
    ['anna', 'operator'],
    ['olga', 'owner'],
  ] as const) {
    const account = await owner.request('admin:account-add', { name, role, password: PASSWORD });
    expect(account).toMatchObject({ name, role, sessions: 0 });
  }
});

afterAll(async () => {
  owner.close();
  await server.close();
  folders.remove();
});

describe('an account', () => {
  it('is kept hashed, with the cost beside it, and its sessions as hashes', async () => {
    const { token } = await signIn('vera');
    const accounts = readFileSync(join(folders.dataDir, 'accounts.json'), 'utf8');
    const sessions = readFileSync(join(folders.dataDir, 'sessions.json'), 'utf8');
    for (const text of [accounts, sessions]) {
      expect(text).not.toContain(PASSWORD);
      expect(text).not.toContain(token);
    }
    const kept = JSON.parse(accounts).accounts as { password: { algorithm: string; n: number; salt: string } }[];
    expect(kept.map(({ password }) => password.algorithm)).toEqual(['scrypt', 'scrypt', 'scrypt']);
    expect(new Set(kept.map(({ password }) => password.salt)).size).toBe(3);
  });

  it('is refused twice, under a name that is none, and with a short password', async () => {
    const add = (name: string, password: string) =>
      owner.request('admin:account-add', { name, role: 'viewer', password });
    await expect(add('anna', PASSWORD)).rejects.toMatchObject({ code: 'account-exists' });
    await expect(add('admin', PASSWORD)).rejects.toMatchObject({ code: 'account-exists' });
    await expect(add('Anna!', PASSWORD)).rejects.toMatchObject({ code: 'bad-message' });
    await expect(add('short', 'short')).rejects.toMatchObject({ code: 'bad-message' });
    await expect(owner.request('admin:account-role', { name: 'nobody', role: 'owner' })).rejects.toMatchObject({
      code: 'unknown-account',
    });
  });
});

describe('a role', () => {
  it('is asked of every request, and a refusal names the role it takes', async () => {
    for (const name of ['vera', 'anna'] as const) {
      const { token, role } = await signIn(name);
      const admin = as(token);
      for (const [event, { role: needed }] of Object.entries(ADMIN_REQUESTS)) {
        const ack = (await admin.socket.timeout(20_000).emitWithAck(event, {})) as {
          error?: { code: string; message: string };
        };
        if (roleReaches(role, needed)) expect(ack.error?.code, `${event} as ${role}`).not.toBe('forbidden');
        else {
          expect(ack.error, `${event} as ${role}`).toMatchObject({ code: 'forbidden' });
          expect(ack.error?.message).toContain(`${needed}; ${name} is`);
        }
      }
      admin.close();
    }
    expect((await owner.snapshot(runId)).run.state).toBe('created');
  });

  it('changes under an open socket', async () => {
    const { token } = await signIn('vera');
    const admin = as(token);
    expect(await admin.request('admin:whoami', {})).toMatchObject({ name: 'vera', role: 'viewer' });
    await owner.request('admin:account-role', { name: 'vera', role: 'operator' });
    expect(await admin.request('admin:whoami', {})).toMatchObject({ name: 'vera', role: 'operator' });
    await owner.request('admin:account-role', { name: 'vera', role: 'viewer' });
    await expect(admin.request('admin:pause', { runId })).rejects.toMatchObject({ code: 'forbidden' });
    admin.close();
  });

  it('signs what it commands in the run’s story', async () => {
    const { token } = await signIn('anna');
    const admin = as(token);
    await admin.request('admin:start', { runId });
    await admin.request('admin:pause', { runId });
    const { log } = await admin.snapshot(runId);
    const texts = log.map(({ text }) => text);
    expect(texts).toContain('anna started the run.');
    expect(texts).toContain('anna paused the run.');
    expect(texts).toContain('admin created the run.');
    const events = await (await request('GET', ROUTES.events(runId), token)).text();
    expect(events).toContain('anna paused the run.');
    admin.close();
  });
});

describe('a session', () => {
  it('opens what the role may over HTTP, and nothing without a credential', async () => {
    const { token } = await signIn('vera');
    expect((await request('GET', ROUTES.contributors(runId), token)).status).toBe(200);
    const anonymous = await fetch(server.url + ROUTES.contributors(runId));
    expect([anonymous.status, await anonymous.json()]).toMatchObject([401, { error: { code: 'unauthorised' } }]);
    const list = await request('GET', ROUTES.sessions, token);
    expect([list.status, await list.json()]).toMatchObject([403, { error: { code: 'forbidden' } }]);
    expect((await request('GET', ROUTES.sessions, ADMIN_TOKEN)).status).toBe(200);
  });

  it('is ended by its own token; others’ take an owner', async () => {
    const vera = await signIn('vera');
    const anna = await signIn('anna');
    expect((await request('DELETE', ROUTES.session(anna.sessionId), vera.token)).status).toBe(403);
    expect((await request('DELETE', ROUTES.session('current'), vera.token)).status).toBe(200);
    expect((await request('GET', ROUTES.contributors(runId), vera.token)).status).toBe(401);
    const olga = await signIn('olga');
    expect((await request('DELETE', ROUTES.session(anna.sessionId), olga.token)).status).toBe(200);
    expect((await request('GET', ROUTES.contributors(runId), anna.token)).status).toBe(401);
    const gone = await request('DELETE', ROUTES.session(anna.sessionId), olga.token);
    expect([gone.status, await gone.json()]).toMatchObject([404, { error: { code: 'unknown-account' } }]);
  });

  it('revoked under an open socket takes its rights at once and closes it', async () => {
    const { token, sessionId } = await signIn('anna');
    const admin = as(token);
    const closed = new Promise<string>((resolve) => admin.socket.on('disconnect', resolve));
    await admin.snapshot(runId);
    expect(await owner.request('admin:session-revoke', { sessionId, account: null })).toEqual({ ended: 1 });
    await expect(admin.request('admin:start', { runId })).rejects.toMatchObject({ code: 'unauthorised' });
    expect(await closed).toBe('io server disconnect');
    admin.close();
    // One that only listens is closed too, with all the others of the account.
    const listener = as((await signIn('anna')).token);
    await listener.snapshot(runId);
    const hungUp = new Promise<string>((resolve) => listener.socket.on('disconnect', resolve));
    expect((await owner.request('admin:session-revoke', { sessionId: null, account: 'anna' })).ended).toBeGreaterThan(
      0,
    );
    expect(await hungUp).toBe('io server disconnect');
    listener.close();
  });

  it('ends with a new password and with its account', async () => {
    await owner.request('admin:account-add', { name: 'temp', role: 'viewer', password: PASSWORD });
    const first = await signIn('temp');
    await owner.request('admin:account-password', { name: 'temp', password: 'another good one' });
    expect((await request('GET', ROUTES.contributors(runId), first.token)).status).toBe(401);
    expect((await post('temp', PASSWORD)).status).toBe(401);
    const second = await signIn('temp', 'another good one');
    await owner.request('admin:account-remove', { name: 'temp' });
    expect((await request('GET', ROUTES.contributors(runId), second.token)).status).toBe(401);
  });

  it('survives a restart, and so do accounts; what was ended stays ended', async () => {
    const kept = await signIn('olga');
    const ended = await signIn('olga');
    await request('DELETE', ROUTES.session('current'), ended.token);
    owner.close();
    await server.close();
    server = await startServer(folders, options);
    owner = new TestAdmin(server.url);
    expect((await request('GET', ROUTES.sessions, kept.token)).status).toBe(200);
    expect((await request('GET', ROUTES.sessions, ended.token)).status).toBe(401);
    const { accounts } = await owner.request('admin:accounts', {});
    expect(accounts.map(({ name, role }) => [name, role])).toEqual([
      ['anna', 'operator'],
      ['olga', 'owner'],
      ['vera', 'viewer'],
    ]);
  });
});

describe('a short life', () => {
  it('ends by idleness and by age, under an open socket too', async () => {
    const short = makeFolders();
    const brief = await startServer(short, { sessionTimes: { idleMs: 600, maximumMs: 5_000 } });
    const boss = new TestAdmin(brief.url);
    await boss.request('admin:account-add', { name: 'anna', role: 'viewer', password: PASSWORD });
    const body = JSON.stringify({ name: 'anna', password: PASSWORD });
    const headers = { 'content-type': 'application/json' };
    const reply = await fetch(brief.url + ROUTES.sessions, { method: 'POST', headers, body });
    const { token, expiresAt } = signInReplySchema.parse(await reply.json());
    expect(Date.parse(expiresAt) - Date.now()).toBeLessThanOrEqual(600);
    const anna = new TestAdmin(brief.url, { protocolVersion: PROTOCOL_VERSION, token });
    await anna.request('admin:overview', {});
    await new Promise((resolve) => setTimeout(resolve, 700));
    await expect(anna.request('admin:overview', {})).rejects.toMatchObject({ code: 'unauthorised' });
    anna.close();
    boss.close();
    await brief.close();
    short.remove();
  });
});

describe('guessing', () => {
  it('is answered alike for known and unknown names, slowly, and is limited by account and address', async () => {
    const other = makeFolders();
    const strict = await startServer(other, { limits: { signIns: 3 } });
    const boss = new TestAdmin(strict.url);
    await boss.request('admin:account-add', { name: 'anna', role: 'viewer', password: PASSWORD });
    const guess = async (name: string, password: string) => {
      const begun = performance.now();
      const reply = await fetch(strict.url + ROUTES.sessions, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name, password }),
      });
      return { status: reply.status, body: await reply.json(), ms: performance.now() - begun };
    };
    const known = await guess('anna', 'wrong but long enough');
    const unknown = await guess('nobody', 'wrong but long enough');
    expect(known.status).toBe(401);
    expect(unknown.body).toEqual(known.body);
    for (const { ms } of [known, unknown]) expect(ms).toBeGreaterThan(500);
    // A right one between takes nothing of the allowance.
    expect((await guess('anna', PASSWORD)).status).toBe(200);
    await guess('anna', 'wrong but long enough');
    const limited = await guess('anna', PASSWORD);
    expect([limited.status, limited.body]).toMatchObject([
      429,
      { error: { code: 'rate-limited', retryAfterMs: expect.any(Number) } },
    ]);
    // The admin token does not sign in and is not locked out.
    expect(await boss.request('admin:whoami', {})).toEqual({ name: 'admin', role: 'owner', sessionId: null });
    boss.close();
    await strict.close();
    other.remove();
  });
});

describe('the admin token', () => {
  it('can be made anew: the old one is worth nothing, sessions go on', async () => {
    const fresh = makeFolders();
    const { adminToken: _, ...rest } = { ...options, adminToken: undefined };
    const first = await startServer(fresh, { ...rest, adminToken: undefined } as unknown as Partial<ServerOptions>);
    const made = first.adminToken ?? '';
    const boss = new TestAdmin(first.url, { protocolVersion: PROTOCOL_VERSION, token: made });
    const { token } = await boss.request('admin:new-token', {});
    await expect(boss.request('admin:overview', {})).rejects.toMatchObject({ code: 'unauthorised' });
    boss.close();
    const again = new TestAdmin(first.url, { protocolVersion: PROTOCOL_VERSION, token });
    expect(await again.request('admin:whoami', {})).toMatchObject({ role: 'owner' });
    again.close();
    await first.close();
    fresh.remove();
  });
});
