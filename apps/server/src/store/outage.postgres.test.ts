// A server whose PostgreSQL goes away, is emptied, is shared, or was never right: rounds go on, the index catches up, and what
// is said of it never holds the password. Each test file of its own cluster, which it may crash.
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { type Contributor, ROUTES } from '@weft/protocol';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest';
import { createServer, type RunningServer, type ServerOptions } from '../index.ts';
import { POSTGRES_PASSWORD, startPostgres, type TestPostgres } from '../testing/postgres.ts';
import { ADMIN_TOKEN, makeFolders, queryTestDatabase, SETTINGS, TestAdmin, testOptions } from '../testing/server.ts';
import { TestVolunteer } from '../testing/volunteer.ts';

let postgres: TestPostgres;
const folders = makeFolders();
const open: { close(): void | Promise<void> }[] = [];
let log = '';

beforeAll(async () => {
  postgres = await startPostgres(inject('postgresBin'));
});
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
  expect(log).not.toContain(POSTGRES_PASSWORD);
  expect(log).not.toContain(encodeURIComponent(POSTGRES_PASSWORD));
  log = '';
});
afterAll(async () => {
  await postgres.remove();
  folders.remove();
});

const keep = <T extends { close(): void | Promise<void> }>(one: T): T => {
  open.push(one);
  return one;
};

function options(name: string, more: Partial<ServerOptions> = {}): ServerOptions {
  const kept = new Writable({
    write(chunk, _encoding, done) {
      log += String(chunk);
      done();
    },
  });
  const logger = pino({ level: 'trace' }, kept);
  return {
    ...testOptions({ ...folders, dataDir: join(folders.root, name) }),
    databaseUrl: postgres.url,
    logger,
    ...more,
  };
}
const start = async (name: string) => keep(await createServer(options(name, { alertEveryMs: 100, alertFreeBytes: 0 })));

async function contributors(server: RunningServer, runId: string): Promise<Contributor[] | string> {
  const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
  const reply = await fetch(server.url + ROUTES.contributors(runId), { headers });
  const body = (await reply.json()) as { contributors?: Contributor[]; error?: { code: string } };
  return body.contributors ?? `${reply.status} ${body.error?.code}`;
}

/** Asks until the answer is as wanted. */
async function until<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean, ms = 15_000): Promise<T> {
  for (const end = Date.now() + ms; ; ) {
    const answer = await ask();
    if (wanted(answer) || Date.now() > end) return answer;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const byRounds = (rounds: number) => (answer: Contributor[] | string) =>
  Array.isArray(answer) && answer.length === 3 && answer.every((one) => one.rounds === rounds);

it('rounds go on without it, and it catches up when it is back, or was emptied', async () => {
  const server = await start('outage');
  const admin = keep(new TestAdmin(server.url));
  const { runId } = await admin.request('admin:create', { ...SETTINGS, rounds: 3 });
  await admin.request('admin:start', { runId });
  const people = await Promise.all([1, 2, 3].map(() => keep(new TestVolunteer(server.url)).enter({ runId })));
  const round = async (number: number) => {
    await Promise.all(people.map((one, i) => one.round([1, 2, 4][i] ?? 1, { size: 0.01, seed: 10 * number + i })));
    await admin.until(runId, ({ run }) => run.version === number);
  };
  await round(1);
  expect(await contributors(server, runId)).toSatisfy(byRounds(1));

  await postgres.crash();
  const began = Date.now();
  await round(2);
  expect(Date.now() - began).toBeLessThan(8_000);
  expect(await contributors(server, runId)).toBe('503 index-away');
  expect(log).toContain('the history index is away');
  await admin.untilAlerts((kinds) => kinds.includes('index-unreachable'));
  await postgres.start();
  const caughtUp = await until(() => contributors(server, runId), byRounds(2));
  expect(caughtUp).toSatisfy(byRounds(2));
  await admin.untilAlerts((kinds) => !kinds.includes('index-unreachable'));

  const { schema } = JSON.parse(readFileSync(join(folders.root, 'outage', 'index.json'), 'utf8')) as { schema: string };
  await queryTestDatabase(`drop schema "${schema}" cascade`, postgres.url);
  await round(3);
  const whole = await until(() => contributors(server, runId), byRounds(3));
  expect(whole).toSatisfy(byRounds(3));
  for (const one of open.splice(0).reverse()) await one.close();

  await queryTestDatabase(`drop schema "${schema}" cascade`, postgres.url);
  const again = await start('outage');
  expect(await contributors(again, runId)).toEqual(whole);
}, 60_000);

it('two servers on one database have schemas of their own; a copy of a folder is kept out', async () => {
  const first = await start('first');
  const second = await start('second');
  const create = async (server: RunningServer, name: string) => {
    const admin = keep(new TestAdmin(server.url));
    return (await admin.request('admin:create', { ...SETTINGS, name })).runId;
  };
  const runs = [await create(first, 'First'), await create(second, 'Second')];
  expect(await contributors(first, runs[0] ?? '')).toEqual([]);
  expect(await contributors(second, runs[1] ?? '')).toEqual([]);
  for (const [i, name] of ['first', 'second'].entries()) {
    const { schema } = JSON.parse(readFileSync(join(folders.root, name, 'index.json'), 'utf8')) as { schema: string };
    expect(await queryTestDatabase(`select run_id from "${schema}".runs`, postgres.url)).toEqual([[runs[i]]]);
  }
  mkdirSync(join(folders.root, 'copy'));
  cpSync(join(folders.root, 'first', 'index.json'), join(folders.root, 'copy', 'index.json'));
  const copy = await start('copy');
  const run = await create(copy, 'Copy');
  expect(await contributors(copy, run)).toBe('503 index-away');
  expect(log).toContain('delete index.json');
}, 60_000);

it.each([
  ['mysql://a:secret@h/d', 'begins with mysql:'],
  ['postgresql://a:secret@h:no-port/d', 'cannot be read'],
  ['postgresql://h/d', 'names no user'],
])('a URL that is none is refused without being repeated: %s', async (databaseUrl, text) => {
  const failed: unknown = await createServer(options('refused', { databaseUrl })).catch((error: unknown) => error);
  expect(failed).toMatchObject({ code: 'database-settings', message: expect.stringContaining(text) });
  expect(String((failed as Error).stack)).not.toContain('secret');
});

it('settings that cannot work keep it from starting, and say what to do', async () => {
  const url = new URL(postgres.url);
  url.password = 'not the password';
  const wrong = createServer(options('wrong', { databaseUrl: url.href }));
  await expect(wrong).rejects.toMatchObject({
    code: 'database-settings',
    message: expect.stringContaining('refused the password of "weft"'),
  });
  url.href = postgres.url;
  url.pathname = '/nothing';
  const none = createServer(options('none', { databaseUrl: url.href }));
  await expect(none).rejects.toMatchObject({ message: expect.stringContaining('createdb "nothing"') });
});

it('a database that does not answer at the start keeps nothing from starting', async () => {
  await postgres.crash();
  const server = await start('early');
  const admin = keep(new TestAdmin(server.url));
  const { runId } = await admin.request('admin:create', SETTINGS);
  expect(await contributors(server, runId)).toBe('503 index-away');
  expect(log).toContain('See that it runs');
  await postgres.start();
  expect(await until(() => contributors(server, runId), Array.isArray)).toEqual([]);
}, 60_000);
