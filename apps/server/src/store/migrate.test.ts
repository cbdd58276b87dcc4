// The index's migrations, on PGlite and again on PostgreSQL (project `postgres`): one database, taken through them in order.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getTableColumns, getTableName } from 'drizzle-orm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { testPlace } from '../testing/index-place.ts';
import type { Connection } from './connection.ts';
import { MIGRATIONS, migrate } from './migrate.ts';
import * as tables from './schema.ts';

let folder: string;
let connection: Connection;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'weft-index-'));
  connection = await testPlace(folder).open(new AbortController().signal, () => undefined);
});
afterAll(async () => {
  await connection.close();
  rmSync(folder, { recursive: true, force: true });
});

const columns = () =>
  connection.query(
    `select table_name, column_name, is_nullable from information_schema.columns
     where table_schema = current_schema() and table_name <> 'weft_migrations' order by 1, 2`,
  );

it('has the tables that queries expect', async () => {
  const expected = Object.values(tables).flatMap((table) =>
    Object.values(getTableColumns(table)).map((column) => [
      getTableName(table),
      column.name,
      column.notNull || column.primary ? 'NO' : 'YES',
    ]),
  );
  const byName = (a: unknown, b: unknown) => (String(a) < String(b) ? -1 : 1);
  expect((await columns()).sort(byName)).toEqual(expected.sort(byName));
});

it('takes over the tables of a version that had no migrations, with their rows', async () => {
  await connection.query('drop table weft_migrations');
  await connection.query('drop table rounds');
  await connection.query('drop index receipts_run_round');
  await connection.query(
    `create table rounds (run_id text not null, round integer not null, version integer not null,
       outcome text not null, reason text, ended_at text not null, merge_ms double precision not null,
       train_loss double precision, held_out_loss jsonb, primary key (run_id, round))`,
  );
  await connection.query(`insert into rounds values ('run', 1, 1, 'committed', null, 'then', 5, null, null)`);
  expect(await migrate(connection)).toBe(2);
  expect(await connection.query('select round, digest from rounds')).toEqual([[1, null]]);
});

it('applies every migration once, and refuses what a newer version has left', async () => {
  expect(await migrate(connection)).toBe(0);
  const next = join(folder, 'migrations');
  cpSync(MIGRATIONS, next, { recursive: true });
  const journal = JSON.parse(readFileSync(join(next, 'meta', '_journal.json'), 'utf8')) as { entries: object[] };
  journal.entries.push({ idx: 99, version: '7', when: 1_900_000_000_000, tag: '0099_next', breakpoints: true });
  writeFileSync(join(next, 'meta', '_journal.json'), JSON.stringify(journal));
  const broken = 'create table later (id text)\n--> statement-breakpoint\nselect * from missing';
  writeFileSync(join(next, '0099_next.sql'), broken);
  await expect(migrate(connection, next)).rejects.toThrow('missing');
  // Half a migration is none.
  expect(JSON.stringify(await columns())).not.toContain('later');
  writeFileSync(join(next, '0099_next.sql'), 'create table later (id text)');
  expect(await migrate(connection, next)).toBe(1);
  await expect(migrate(connection)).rejects.toMatchObject({ code: 'database-settings' });
});
