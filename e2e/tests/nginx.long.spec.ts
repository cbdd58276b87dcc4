// The operator's page, tried: nginx with the configuration of docs/operations.md ends TLS before a real server. Two tabs over WebSocket and
// the foreign client over long polling carry a round through it; it redirects, keeps /metrics in, and passes Range requests on.
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@playwright/test';
import { launchArguments, VolunteerTab } from '@weft/e2e/fleet';
import { manifestSchema, ROUTES } from '@weft/protocol';
import { chromium } from 'playwright';
import { findPython, MISSING_PYTHON, runClient } from '../foreign-client/python.ts';
import { AdminSocket } from './support/admin-socket.ts';
import { findNginx, Nginx } from './support/nginx.ts';
import { WeftServer } from './support/weft-server.ts';

const command = findNginx();
const python = findPython();

test.skip(command === null, 'nginx is not installed; on Debian: apt-get install nginx');
test.skip(python === null, MISSING_PYTHON);

/** As the page starts the server behind nginx. */
const BEHIND = ['--trust-proxy', '127.0.0.1'];

let server: WeftServer;
let nginx: Nginx;
let folder: string;

test.beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'weft-behind-nginx-'));
  server = new WeftServer({ args: BEHIND });
  await server.start();
  nginx = new Nginx(command ?? '');
  await nginx.start(server.port);
});

test.afterAll(async () => {
  await nginx.stop();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Status, headers and size of an answer; the certificate is nobody's, so it is not checked. `from`: an address of this machine. */
function ask(path: string, headers: Record<string, string> = {}, from = '127.0.0.1', through = nginx) {
  return new Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; bytes: number }>((resolve, reject) => {
    const to = `${through.url.replace('localhost', '127.0.0.1')}${path}`;
    const options = { headers: { host: 'localhost', ...headers }, localAddress: from, rejectUnauthorized: false };
    request(to, options, (answer) => {
      let bytes = 0;
      answer.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, bytes }));
      answer.once('error', reject);
    })
      .once('error', reject)
      .end();
  });
}

test('a round through nginx: pages and sockets over TLS, WebSocket and long polling', async () => {
  const admin = new AdminSocket(server.url, server.token);
  const executablePath = process.env.WEFT_BROWSER;
  const browser = await chromium.launch({
    ...(executablePath ? { executablePath } : { channel: 'chromium' }),
    // A worker's sockets do not know of Playwright's leave to ignore certificates.
    args: [...launchArguments('software'), '--ignore-certificate-errors'],
  });
  try {
    const { runId } = await admin.request('admin:create', {
      name: 'behind nginx',
      purpose: 'Help teach a small model to answer in a word.',
      operator: 'the test',
      ranks: [2, 8],
      tasks: ['country-continent'],
      rounds: 1,
      goal: 3,
      minimum: 3,
      localSteps: 4,
      batchSize: 2,
      sequenceLength: 32,
      evaluate: false,
    });
    await admin.request('admin:start', { runId });
    const names = ['first', 'second'];
    const tabs = await Promise.all(names.map((name) => VolunteerTab.open(browser, nginx.url, { name })));
    expect(await tabs[0]?.page.evaluate(() => isSecureContext)).toBe(true);
    await Promise.all(tabs.map((tab) => tab.whenReady()));
    await Promise.all(tabs.map((tab) => tab.start()));
    const foreign = await runClient(python ?? '', [
      nginx.url,
      ...['--ca', nginx.certificate, '--transport', 'polling', '--rank', '2', '--key', join(folder, 'key.pem')],
    ]);
    expect(foreign.code, foreign.stderr).toBe(0);
    await expect
      .poll(async () => (await (await server.get(ROUTES.run(runId))).json()).version, { timeout: 60_000 })
      .toBe(1);
    for (const tab of tabs) await tab.close();

    const log = nginx.accessLog();
    expect(log, 'WebSocket was upgraded').toMatch(/"GET \/socket\.io\/\S*transport=websocket\S* HTTP\/1\.1" 101 /);
    expect(log, 'long polling carried an upload').toMatch(
      /"POST \/socket\.io\/\S*transport=polling\S* HTTP\/1\.1" 200 /,
    );

    const plain = await fetch(`${nginx.plainUrl}/admin`, { redirect: 'manual' });
    expect(plain.status).toBe(301);
    expect(plain.headers.get('location')).toMatch(/^https:\/\/localhost\/admin$/);
    const page = await ask('/');
    expect(page.headers['strict-transport-security']).toContain('max-age=');
    expect((await ask(ROUTES.metrics)).status).toBe(404);
    expect((await server.get(ROUTES.metrics)).status).toBe(200);
    const manifest = manifestSchema.parse(await (await server.get(ROUTES.manifest(runId))).json());
    const file = manifest.files.reduce((largest, each) => (each.bytes > largest.bytes ? each : largest));
    const part = await ask(ROUTES.blob(file.sha256), { range: 'bytes=10-1009' });
    expect(part).toMatchObject({ status: 206, bytes: 1000 });
    expect((await ask(ROUTES.blob(file.sha256))).bytes).toBe(file.bytes);
  } finally {
    admin.close();
    await browser.close();
  }
});

test('limits count the visitors’ own addresses, and believe nobody but nginx', async () => {
  const small = new WeftServer({ args: [...BEHIND, '--limit', 'requests=5'] });
  const front = new Nginx(command ?? '');
  try {
    await small.start();
    await front.start(small.port);
    const statuses = async (from: string, headers: Record<string, string> = {}): Promise<number[]> => {
      const found: number[] = [];
      for (let i = 0; i < 7; i += 1) found.push((await ask(ROUTES.runs, headers, from, front)).status);
      return found;
    };
    const [greedy, other] = [await statuses('127.0.0.2'), (await ask(ROUTES.runs, {}, '127.0.0.3', front)).status];
    expect(greedy.slice(-2), 'beyond its five').toEqual([429, 429]);
    expect(other, 'another visitor is served').toBe(200);
    // A visitor who writes the header itself gains nothing: nginx overwrites it.
    expect((await ask(ROUTES.runs, { 'x-forwarded-for': '203.0.113.9' }, '127.0.0.2', front)).status).toBe(429);
  } finally {
    await front.stop();
    await small.stop();
  }
});
