// What a server says of itself, against what is written about it: every metric, every event, and a log whose lines name run,
// round and client and never a secret. One server, one run with every kind of ending.
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { ROUTES } from '@weft/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createServer, type RunningServer } from './index.ts';
import { createLogger } from './log.ts';
import { RUN_EVENTS } from './runs/events.ts';
import { EventLog } from './store/event-log.ts';
import { ADMIN_TOKEN, makeFolders, SETTINGS, TestAdmin, testOptions } from './testing/server.ts';
import { TestVolunteer } from './testing/volunteer.ts';

const doc = (name: string) => readFileSync(fileURLToPath(new URL(`../../../docs/${name}`, import.meta.url)), 'utf8');
/** Cells of a document's table rows that begin with `code`. */
const rows = (text: string): string[][] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
const codes = (cell = ''): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, code]) => code ?? '');

const folders = makeFolders();
let server: RunningServer;
let admin: TestAdmin;
let runId: string;
let log = '';
const secrets: string[] = [ADMIN_TOKEN, 'a-secret-path'];
const people: TestVolunteer[] = [];
const lines = () =>
  log
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const events = async () =>
  (
    await (
      await fetch(server.url + ROUTES.events(runId), { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } })
    ).text()
  ).split('\n');
const metrics = async () => (await fetch(server.url + ROUTES.metrics)).text();

beforeAll(async () => {
  const destination = new Writable({
    write(chunk, _encoding, done) {
      log += String(chunk);
      done();
    },
  });
  const logger = createLogger({ level: 'trace', destination });
  // Nobody listens there: what cannot be delivered is logged too.
  const alertWebhook = 'http://127.0.0.1:9/a-secret-path';
  server = await createServer({
    ...testOptions(folders),
    logger,
    alertWebhook,
    alertEveryMs: 50,
    alertFreeBytes: 1e18,
  });
  admin = new TestAdmin(server.url);
  const settings = { ...SETTINGS, rounds: 1, evaluate: true };
  runId = (await admin.request('admin:create', settings)).runId;
  await admin.request('admin:start', { runId });
  for (const name of ['Ada', 'Ben', 'Cleo']) {
    const one = new TestVolunteer(server.url);
    people.push(one);
    secrets.push(one.publicKey.x, one.publicKey.y);
    await one.enter({ runId, name });
  }
  const [ada, ben, cleo] = people as [TestVolunteer, TestVolunteer, TestVolunteer];
  const lease = await ada.lease(1);
  await ada.request('lease:release', { leaseId: lease.leaseId, reason: 'page-closed' });
  await expect(ben.request('upload:commit', { leaseId: 'none', sha256: '0'.repeat(64) })).rejects.toThrow();
  await ada.raw('no:such', { token: ADMIN_TOKEN });
  await Promise.all([ada, ben, cleo].map((one, i) => one.round([1, 2, 4][i] ?? 1, { size: 0.01, seed: i })));
  await admin.until(runId, ({ run }) => run.state === 'completed');
  const judge = new TestVolunteer(server.url);
  people.push(judge);
  await judge.enter({ runId, operatorToken: ADMIN_TOKEN });
  const { job } = await judge.request('evaluation:next', {});
  const results = SETTINGS.tasks?.map((task) => ({ task, loss: 3, targetTokens: 10, rows: 1 })) ?? [];
  await judge.request('evaluation:report', { jobId: job?.jobId ?? '', results });
});
afterAll(async () => {
  for (const one of people) one.close();
  admin.close();
  await server.close();
  folders.remove();
});

describe('metrics', () => {
  it('are those of docs/metrics.md, with their types and labels', async () => {
    const text = await metrics();
    const exposed = [...text.matchAll(/^# TYPE (weft_\w+) (\w+)$/gm)].map(([, name, type]) => [name, type]);
    const described = rows(doc('metrics.md')).filter(([cell]) => cell?.startsWith('`weft_'));
    expect(exposed.sort()).toEqual(described.map(([name, type]) => [codes(name)[0], type]).sort());
    for (const [name, , labels] of described) {
      const [metric = ''] = codes(name);
      const line = text.split('\n').find((one) => new RegExp(`^${metric}(_count|_bucket)?\\{`).test(one));
      if (!line) continue;
      const used = [...line.matchAll(/[{,](\w+)="/g)].map(([, label]) => label).filter((label) => label !== 'le');
      expect([metric, used.sort()]).toEqual([metric, codes(labels).sort()]);
    }
    for (const [, name = ''] of doc('metrics.md').matchAll(/`((?:process|nodejs)_[a-z0-9_]+)`/g)) {
      expect(text).toContain(`# TYPE ${name} `);
    }
  });

  it('count what happened', async () => {
    const text = await metrics();
    for (const line of [
      `weft_uploads_accepted_total{run="${runId}"} 3`,
      `weft_uploads_refused_total{run="${runId}",code="unknown-lease"} 1`,
      `weft_messages_total{event="unknown",code="unknown-event"} 1`,
      `weft_rounds{run="${runId}",outcome="committed"} 1`,
      `weft_merge_seconds_count{run="${runId}"} 1`,
      `weft_upload_seconds_count{run="${runId}"} 3`,
      `weft_ack_seconds_count{event="upload:commit"} 4`,
      `weft_alerts{kind="disk-full",run=""} 1`,
    ]) {
      expect(text).toContain(line);
    }
    expect(text).toMatch(/^weft_disk_free_bytes \d+/m);
    expect(Number(/^weft_bytes_in_total (\d+)/m.exec(text)?.[1])).toBeGreaterThan(3_000);
    for (const { clientId } of people) expect(text).not.toContain(clientId);
  });

  it('cost a message next to nothing', async () => {
    const { Metrics } = await import('./http/metrics.ts');
    const meter = new Metrics().meter(
      () => 'run',
      () => undefined,
    );
    const began = process.cpuUsage();
    for (let i = 0; i < 20_000; i++) meter.answered('lease:heartbeat', null, 1, 200);
    // Ten thousand volunteers send a thousand heartbeats a second: a hundredth of a core would be 10 µs each.
    const { user, system } = process.cpuUsage(began);
    expect((user + system) / 20_000).toBeLessThan(10);
  });
});

describe('events', () => {
  it('are those of docs/events.md', () => {
    const described = rows(doc('events.md')).map(([type, fields]) => [codes(type)[0], codes(fields)]);
    expect(described).toEqual(Object.entries(RUN_EVENTS).map(([type, schema]) => [type, Object.keys(schema.shape)]));
  });

  it('of a real run hold what their schemas say, and nothing else', async () => {
    const seen = new Set<string>();
    for (const line of (await events()).slice(0, -1)) {
      const { at, type, ...detail } = z.looseObject({ at: z.iso.datetime(), type: z.string() }).parse(JSON.parse(line));
      const schema = Object.entries(RUN_EVENTS).find(([name]) => name === type)?.[1];
      expect([at, type, schema?.strict().safeParse(detail).error?.issues]).toEqual([at, type, undefined]);
      seen.add(type);
    }
    for (const type of ['log', 'granted', 'uploaded', 'phase', 'committed', 'evaluated', 'run-ended']) {
      expect(seen).toContain(type);
    }
  });

  it('survive a kill in the middle of a line, and are bounded', () => {
    const folder = mkdtempSync(join(tmpdir(), 'weft-events-'));
    const path = join(folder, 'events.jsonl');
    const write = (from: number, to: number) => {
      const file = new EventLog(folder, 1_000);
      for (let n = from; n < to; n++) file.append({ n });
      file.close();
      return file.paths();
    };
    write(0, 2);
    appendFileSync(path, '{"n":1,"half');
    expect(write(2, 3)).toEqual([path]);
    expect(readFileSync(path, 'utf8')).toBe('{"n":0}\n{"n":1}\n{"n":2}\n');
    appendFileSync(path, 'x'.repeat(200_000));
    const paths = write(3, 250);
    expect(paths).toEqual([join(folder, 'events.1.jsonl'), path]);
    const kept = paths.map((one) => readFileSync(one, 'utf8'));
    expect(kept.join('').split('\n').at(-2)).toBe('{"n":249}');
    for (const text of kept) expect(text.length).toBeLessThanOrEqual(1_000);
    rmSync(folder, { recursive: true });
  });
});

describe('the log', () => {
  it('names run, round and client in fields', () => {
    const about = lines().filter(({ msg }) => /delivered|is out of round/.test(String(msg)));
    expect(about).toHaveLength(4);
    for (const line of about) expect(line).toMatchObject({ run: runId, round: 1, client: expect.any(String) });
    for (const line of lines().filter(({ msg }) => /^Round \d/.test(String(msg)))) {
      expect(line).toMatchObject({ run: runId, round: expect.any(Number) });
    }
    const clients = new Set(about.map(({ client }) => client));
    expect(people.slice(0, 3).every(({ clientId }) => clients.has(clientId))).toBe(true);
  });

  it('holds no secret, whatever failed', async () => {
    await fetch(`${server.url}${ROUTES.contributors(runId)}?token=${ADMIN_TOKEN}`);
    expect(log).toContain('did not take an alert');
    for (const secret of secrets) expect(log).not.toContain(secret);
  });

  it('strikes out what authorises should it be logged all the same', () => {
    let text = '';
    const destination = new Writable({
      write(chunk, _encoding, done) {
        text += String(chunk);
        done();
      },
    });
    const secret = { token: 'S3', headers: { authorization: 'S3', cookie: 'S3' }, deep: { publicKey: 'S3' } };
    createLogger({ destination }).info({ password: 'S3', secret }, 'a line');
    expect(text).toContain('[struck out]');
    expect(text).not.toContain('S3');
    expect(() => createLogger({ level: 'loud' })).toThrowError(expect.objectContaining({ code: 'bad-log-level' }));
  });
});
