// The HTTP side of a running server: pages, manifests, ranges, headers.

import { manifestSchema, ROUTES, runViewSchema } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningServer } from '../index.ts';
import { makeFolders, SETTINGS, startServer, TestAdmin } from '../testing/server.ts';
import { sha256 } from '../testing/volunteer.ts';
import { parseRange } from './blob.ts';

describe('parseRange', () => {
  it.each([
    [undefined, null],
    ['bytes=0-9', { begin: 0, end: 10 }],
    ['bytes=90-', { begin: 90, end: 100 }],
    ['bytes=-10', { begin: 90, end: 100 }],
    ['bytes=95-200', { begin: 95, end: 100 }],
    ['bytes=100-', 'unsatisfiable'],
    ['bytes=5-4', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=0-1,5-6', null],
    ['lines=0-1', null],
  ])('%s', (header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected);
  });
});

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;
const get = (path: string, headers: Record<string, string> = {}) => fetch(server.url + path, { headers });

beforeAll(async () => {
  server = await startServer(folders);
  admin = new TestAdmin(server.url);
  runId = (await admin.request('admin:create', SETTINGS)).runId;
});

afterAll(async () => {
  admin.close();
  await server.close();
  folders.remove();
});

it('serves both pages under a strict policy', async () => {
  for (const [path, title] of [
    ['/', 'volunteer'],
    ['/admin', 'admin'],
  ] as const) {
    const reply = await get(path);
    expect(reply.status).toBe(200);
    expect(await reply.text()).toContain(title);
    const policy = reply.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'self'");
    expect(policy).not.toContain('unsafe');
  }
});

it('lists runs and their manifest, whose files are what it says', async () => {
  const { runs } = (await (await get(ROUTES.runs)).json()) as { runs: unknown[] };
  expect(runs).toHaveLength(1);
  const view = runViewSchema.parse(await (await get(ROUTES.run(runId))).json());
  const manifest = manifestSchema.parse(await (await get(ROUTES.manifest(runId))).json());
  expect(manifest.model).toMatchObject({ name: 'stories260K', parameters: 260_032 });
  expect(manifest.tasks.map((task) => task.name)).toEqual(view.settings.tasks);
  expect(manifest.files).toHaveLength(4 + 3 * 3);
  for (const file of manifest.files) {
    const bytes = new Uint8Array(await (await get(ROUTES.blob(file.sha256))).arrayBuffer());
    expect(bytes.length).toBe(file.bytes);
    expect(sha256(bytes)).toBe(file.sha256);
    const pieces = Array.from({ length: Math.ceil(bytes.length / manifest.pieceBytes) }, (_, i) =>
      sha256(bytes.subarray(i * manifest.pieceBytes, (i + 1) * manifest.pieceBytes)),
    );
    expect(file.pieces).toEqual(pieces);
  }
});

it('answers ranges and knows what is cached', async () => {
  const manifest = manifestSchema.parse(await (await get(ROUTES.manifest(runId))).json());
  const file = manifest.files.find((entry) => entry.name === 'model.safetensors');
  const path = ROUTES.blob(file?.sha256 ?? '');
  const whole = new Uint8Array(await (await get(path)).arrayBuffer());
  const part = await get(path, { range: 'bytes=100-199' });
  expect([part.status, part.headers.get('content-range')]).toEqual([206, `bytes 100-199/${whole.length}`]);
  expect(new Uint8Array(await part.arrayBuffer())).toEqual(whole.slice(100, 200));
  expect(part.headers.get('etag')).toBe(`"${file?.sha256}"`);
  expect(part.headers.get('cache-control')).toContain('immutable');
  expect((await get(path, { 'if-none-match': `"${file?.sha256}"` })).status).toBe(304);
  expect((await get(path, { range: `bytes=${whole.length}-` })).status).toBe(416);
});

it('names what is not there', async () => {
  for (const path of [ROUTES.blob('0'.repeat(64)), '/nothing', '/../../etc/passwd']) {
    const reply = await get(path);
    expect([reply.status, await reply.json()]).toMatchObject([404, { error: { code: 'not-found' } }]);
  }
  expect(await (await get(ROUTES.run('none'))).json()).toMatchObject({ error: { code: 'unknown-run' } });
  expect(await (await get(ROUTES.blob('../secret'))).json()).toHaveProperty('error.code');
  const headers = { authorization: 'Bearer a token for tests' };
  const early = await get(ROUTES.adapter(runId, 'adapter.zip'), headers);
  expect([early.status, await early.json()]).toMatchObject([404, { error: { code: 'not-found' } }]);
});

it('reports health and metrics', async () => {
  expect(await (await get(ROUTES.health)).json()).toEqual({
    status: 'ok',
    runs: 1,
    storage: { freeBytes: expect.any(Number), low: false, findings: {} },
  });
  const metrics = await (await get(ROUTES.metrics)).text();
  expect(metrics).toContain(`weft_clients_here{run="${runId}"} 0`);
  expect(metrics).toContain('process_cpu_seconds_total');
});
