// A database the index may live in, as the index sees it: one connection, one question at a time. PGlite and PostgreSQL
// are behind it, spoken to through the same Drizzle dialect and the same migrations.
import { drizzle, type PgRemoteDatabase } from 'drizzle-orm/pg-proxy';

export interface Connection {
  /** Rows as arrays, columns in the order asked for. Rejects with a ServerError 'database'. */
  query(text: string, params?: readonly unknown[]): Promise<unknown[]>;
  /** Lets the last answer come, then ends. */
  close(): Promise<void>;
  /** Ends at once; questions on their way are rejected. */
  end(): Promise<void>;
}

/** Where the index lives. */
export interface IndexPlace {
  /** For people: a folder, or user@host:port/database. Never a password. */
  readonly name: string;
  /** Milliseconds that first work may wait for the opening. */
  readonly openAfterMs: number;
  /**
   * Opens it with its tables as this version wants them. `lost` is called once when an opened connection ends by itself.
   * Rejects with ServerError 'database-settings' where only the operator can help, else 'database'.
   */
  open(signal: AbortSignal, lost: (error: Error) => void): Promise<Connection>;
}

export type Database = PgRemoteDatabase<Record<string, never>>;

export const databaseOver = (connection: Connection): Database =>
  drizzle(async (text, params) => ({ rows: await connection.query(text, params) }));

/** All of `work`, or nothing of it. */
export async function atomically(connection: Connection, work: () => Promise<void>): Promise<void> {
  await connection.query('begin');
  try {
    await work();
  } catch (error) {
    // Where the connection is gone the database rolls back by itself; the first error is the one that tells.
    await connection.query('rollback').catch(() => undefined);
    throw error;
  }
  await connection.query('commit');
}
