// Brings a database to the tables this version wants: versioned SQL files in Drizzle's layout, the same for PGlite and
// PostgreSQL. Hand-run because Drizzle's own migrators have one fixed schema for their notes; ours is a schema a data folder.
import { fileURLToPath } from 'node:url';
import { readMigrationFiles } from 'drizzle-orm/migrator';
import { ServerError } from '../errors.ts';
import { atomically, type Connection } from './connection.ts';

const fromSource = import.meta.url.endsWith('.ts');
export const MIGRATIONS = fileURLToPath(new URL(fromSource ? '../../migrations' : '../migrations', import.meta.url));

/**
 * Applies what is missing, each file in a transaction of its own. The caller has the database to itself. Returns how many
 * were applied. Throws ServerError 'database-settings' when a newer Weft has been here.
 */
export async function migrate(connection: Connection, folder = MIGRATIONS): Promise<number> {
  await connection.query(
    'create table if not exists weft_migrations (hash text primary key, applied_at timestamptz not null default now())',
  );
  const known = readMigrationFiles({ migrationsFolder: folder });
  const rows = (await connection.query('select hash from weft_migrations')) as [string][];
  const applied = new Set(rows.map(([hash]) => hash));
  for (const { hash } of known) applied.delete(hash);
  if (applied.size > 0) {
    throw new ServerError(
      'database-settings',
      'The history index was made by another version of Weft. Start that version, or let this one make an index of its own: for PGlite delete the data folder’s database/, for PostgreSQL its index.json.',
    );
  }
  const missing = known.filter(({ hash }) => !rows.some(([kept]) => kept === hash));
  for (const { hash, sql } of missing) {
    await atomically(connection, async () => {
      for (const statement of sql) await connection.query(statement);
      await connection.query('insert into weft_migrations (hash) values ($1)', [hash]);
    });
  }
  return missing.length;
}
