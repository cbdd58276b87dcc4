// `weft admin`, `weft invite` and the edges of `weft serve`, as processes: accounts on a stopped folder and through a running
// server, the lost token, invites, HTTPS with SIGHUP.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generate } from 'selfsigned';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const weftFile = fileURLToPath(new URL('../../dist/weft.js', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'weft-admin-'));
const dataDir = join(root, 'data');
const PASSWORD = 'correct horse battery';

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function weft(
  args: readonly string[],
  { input = '', env = {} }: { input?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Ran> {
  const { WEFT_ADMIN_TOKEN: _, ...inherited } = process.env;
  const child = spawn(process.execPath, [weftFile, ...args], { env: { ...inherited, ...env }, stdio: 'pipe' });
  const streams = { out: '', err: '' };
  child.stdout.on('data', (chunk: Buffer) => {
    streams.out += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    streams.err += chunk.toString();
  });
  child.stdin.end(input);
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...streams })));
}

async function document(args: readonly string[], options: Parameters<typeof weft>[1] = {}) {
  const { code, out, err } = await weft([...args, '--json'], options);
  expect(code, err).toBe(0);
  return JSON.parse(out);
}

interface Served {
  readonly child: ChildProcess;
  readonly url: string;
  readonly adminToken: string | null;
  readonly fingerprint: string | null;
  readonly log: () => string;
  stop(): Promise<void>;
}

function serve(folder: string, args: readonly string[] = []): Promise<Served> {
  const { WEFT_ADMIN_TOKEN: _, ...env } = process.env;
  const child = spawn(process.execPath, [weftFile, 'serve', '--json', '--port', '0', '--data-dir', folder, ...args], {
    env: { ...env, WEFT_LOG_LEVEL: 'info' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  const stop = () =>
    new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.kill('SIGTERM');
    });
  return new Promise((resolve, reject) => {
    let out = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
      if (out.trimEnd().endsWith('}')) resolve({ ...JSON.parse(out), child, stop, log: () => log });
    });
    child.once('exit', (code) => reject(new Error(`weft serve ended with ${code}: ${log}`)));
  });
}

let server: Served;
let token: string;

beforeAll(async () => {
  server = await serve(dataDir);
  token = server.adminToken ?? '';
}, 60_000);

afterAll(async () => {
  await server.stop();
  rmSync(root, { recursive: true, force: true });
});

describe('through a running server', () => {
  it('an owner adds, lists and changes accounts; passwords come by standard input', async () => {
    const at = ['--server', server.url];
    const env = { WEFT_ADMIN_TOKEN: token };
    const added = await document(['admin', 'add-account', 'olga', '--role', 'owner', ...at], {
      input: `${PASSWORD}\n`,
      env,
    });
    expect(added).toMatchObject({ name: 'olga', role: 'owner' });
    await document(['admin', 'add-account', 'anna', '--role', 'viewer', ...at], { input: PASSWORD, env });
    // Her own password first, then the new one.
    const as = ['--user', 'olga', ...at];
    await document(['admin', 'set-password', 'anna', ...as], { input: `${PASSWORD}\nanother good one\n` });
    await document(['admin', 'set-role', 'anna', 'operator', ...as], { input: `${PASSWORD}\n` });
    const { accounts } = await document(['admin', 'list', ...as], { input: `${PASSWORD}\n` });
    expect(accounts).toMatchObject([
      { name: 'anna', role: 'operator' },
      { name: 'olga', role: 'owner' },
    ]);
    // The sessions of these commands ended with them, the one of this command excepted.
    const { sessions } = await document(['admin', 'sessions', ...as], { input: `${PASSWORD}\n` });
    expect(sessions).toMatchObject([{ account: 'olga', current: true }]);
  });

  it('says what is wrong: nobody named, a wrong password, too small a role, no server, a folder in use', async () => {
    const at = ['--server', server.url];
    const [nobody, wrong, small, away, short] = await Promise.all([
      weft(['admin', 'list', ...at]),
      weft(['admin', 'list', '--user', 'olga', ...at, '--json'], { input: 'not the password\n' }),
      weft(['admin', 'list', '--user', 'anna', ...at, '--json'], { input: 'another good one\n' }),
      weft(['admin', 'list', '--user', 'anna', '--server', 'http://127.0.0.1:9', '--json'], { input: 'x\n' }),
      weft(['admin', 'add-account', 'b', '--role', 'viewer', ...at], {
        input: 'short\n',
        env: { WEFT_ADMIN_TOKEN: token },
      }),
    ]);
    expect([nobody.code, nobody.err]).toEqual([2, expect.stringContaining('WEFT_ADMIN_TOKEN')]);
    expect([wrong.code, JSON.parse(wrong.out)]).toMatchObject([1, { error: { code: 'unauthorised' } }]);
    expect([small.code, JSON.parse(small.out)]).toMatchObject([1, { error: { code: 'forbidden' } }]);
    expect([away.code, JSON.parse(away.out)]).toMatchObject([1, { error: { code: 'no-server' } }]);
    expect([short.code, short.err]).toEqual([2, expect.stringContaining('at least 10')]);
    const locked = await weft(['admin', 'new-token', '--data-dir', dataDir, '--json']);
    expect(JSON.parse(locked.out)).toMatchObject({
      error: { code: 'data-dir-locked', message: expect.stringContaining('--server URL') },
    });
    const nowhere = await weft(['admin', 'new-token', '--data-dir', join(root, 'typo'), '--json']);
    expect(JSON.parse(nowhere.out)).toMatchObject({ error: { code: 'no-data-folder' } });
  });

  it('an operator makes, lists and takes back invites', async () => {
    const as = ['--server', server.url, '--user', 'anna'];
    const input = 'another good one\n';
    const made = await document(
      [
        'invite',
        'create',
        '--label',
        'course',
        '--uses',
        '30',
        '--expires',
        '12h',
        '--page',
        'https://weft.example.org/',
        ...as,
      ],
      { input },
    );
    expect(made.link).toBe(`https://weft.example.org/#invite=${made.token}`);
    expect(made.invite).toMatchObject({ label: 'course', maxUses: 30, createdBy: 'anna' });
    expect(Date.parse(made.invite.expiresAt) - Date.now()).toBeGreaterThan(11.9 * 3_600_000);
    await document(['invite', 'revoke', made.invite.inviteId, ...as], { input });
    const table = await weft(['invite', 'list', ...as], { input });
    expect(table.out).toMatch(new RegExp(`${made.invite.inviteId}.*course.*0/30.*taken back`));
    const bad = await weft(['invite', 'create', '--expires', 'soon', ...as], { input });
    expect(bad.code).toBe(2);
  });
});

describe('on the folder of a stopped server', () => {
  it('a lost token is replaced, and accounts are changed without a credential', async () => {
    await server.stop();
    const { adminToken } = await document(['admin', 'new-token', '--data-dir', dataDir]);
    await document(['admin', 'add-account', 'vera', '--role', 'viewer', '--data-dir', dataDir], {
      input: `${PASSWORD}\n`,
    });
    await document(['admin', 'remove', 'anna', '--data-dir', dataDir]);
    server = await serve(dataDir);
    expect(server.adminToken).toBeNull();
    const at = ['--server', server.url];
    const old = await weft(['admin', 'list', ...at, '--json'], { env: { WEFT_ADMIN_TOKEN: token } });
    expect(JSON.parse(old.out)).toMatchObject({ error: { code: 'unauthorised' } });
    const { accounts } = await document(['admin', 'list', ...at], { env: { WEFT_ADMIN_TOKEN: adminToken } });
    expect(accounts.map(({ name }: { name: string }) => name)).toEqual(['olga', 'vera']);
  });
});

describe('weft serve', () => {
  it('over HTTPS prints the fingerprint, and on SIGHUP takes the new files', async () => {
    const [certFile, keyFile] = [join(root, 'cert.pem'), join(root, 'key.pem')];
    const write = async () => {
      const made = await generate([{ name: 'commonName', value: 'localhost' }], { keyType: 'ec' });
      writeFileSync(certFile, made.cert);
      writeFileSync(keyFile, made.private);
    };
    await write();
    const secured = await serve(join(root, 'secured'), ['--https-cert', certFile, '--https-key', keyFile]);
    expect(secured.url).toMatch(/^https:/);
    expect(secured.fingerprint).toMatch(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
    await write();
    secured.child.kill('SIGHUP');
    await expect.poll(() => secured.log(), { timeout: 10_000 }).toContain('a new certificate is in use');
    await secured.stop();
    const own = await serve(join(root, 'own'), ['--https']);
    const env = { WEFT_ADMIN_TOKEN: own.adminToken ?? '', NODE_EXTRA_CA_CERTS: join(root, 'ca.pem') };
    writeFileSync(
      env.NODE_EXTRA_CA_CERTS,
      (JSON.parse(readFileSync(join(root, 'own', 'tls.json'), 'utf8')) as { cert: string }).cert,
    );
    expect(await document(['admin', 'list', '--server', own.url], { env })).toEqual({ accounts: [] });
    await own.stop();
  }, 60_000);

  it('refuses options that contradict each other', async () => {
    const cases: [args: string[], said: string][] = [
      [['--https-cert', 'a.pem'], 'belong together'],
      [['--limit', 'speed=3'], 'NAME=N'],
      [['--session-idle', 'long'], '7d'],
      [['--public-url', 'weft'], 'weft.example.org'],
    ];
    const tries = cases.map(async ([args, said], i) => {
      const { code, err } = await weft(['serve', '--port', '0', '--data-dir', join(root, `none${i}`), ...args]);
      expect(code, err).not.toBe(0);
      expect(err).toContain(said);
    });
    await Promise.all(tries);
  });
});
