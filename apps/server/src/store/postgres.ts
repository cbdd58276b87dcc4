// The index in a PostgreSQL of the operator's. Every data folder has a schema of its own, named in its index.json, and holds
// an advisory lock on it: two servers may share a database and never mix. See docs/decisions/0013-index-in-postgresql.md.
import { randomBytes } from 'node:crypto';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { Client } from 'pg';
import { z } from 'zod';
import { messageOf, ServerError, systemCode } from '../errors.ts';
import type { Connection, IndexPlace } from './connection.ts';
import { readJson, writeJson } from './files.ts';
import { migrate } from './migrate.ts';

const CONNECT_MS = 5_000;
/** A query without an answer for so long has lost its connection without anybody saying so. */
const QUERY_MS = 60_000;

const indexFileSchema = z.object({ schema: z.string().regex(/^weft_[0-9a-f]{16}$/) });

/** Name of the folder's schema; chosen once, at random, so that a copy elsewhere is found out by its lock. */
function schemaOf(dataDir: string): string {
  const path = join(dataDir, 'index.json');
  const kept = readJson(path, indexFileSchema);
  if (kept) return kept.schema;
  const schema = `weft_${randomBytes(8).toString('hex')}`;
  writeJson(path, { schema });
  return schema;
}

interface Address {
  /** user@host:port/database. */
  readonly label: string;
  readonly user: string;
  readonly database: string;
}

/** Throws ServerError 'database-settings'. The URL itself is never repeated: it holds a password. */
function addressOf(url: string): Address {
  const bad = (what: string) =>
    new ServerError(
      'database-settings',
      `${what} Write --database or DATABASE_URL as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters in it percent-encoded.`,
    );
  // The error of `new URL` holds the whole URL, password included; so it is asked first.
  if (!URL.canParse(url)) throw bad('The database’s URL cannot be read.');
  const parsed = new URL(url);
  if (parsed.protocol !== 'postgres:' && parsed.protocol !== 'postgresql:') {
    throw bad(`The database’s URL begins with ${parsed.protocol}//, not postgresql://.`);
  }
  const database = decode(parsed.pathname.slice(1));
  const user = decode(parsed.username);
  if (database === '' || user === '') throw bad('The database’s URL names no user or no database.');
  const host = parsed.searchParams.get('host') ?? parsed.host;
  return { label: `${user}@${host}/${database}`, user, database };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** SQLSTATE of what only the operator can put right, and how. */
const REMEDIES: Readonly<Record<string, (address: Address) => string>> = {
  '28P01': ({ user }) => `It refused the password of "${user}". Correct the URL.`,
  '28000': ({ user }) => `It does not let "${user}" in. Correct the URL, or allow that user in pg_hba.conf.`,
  '3D000': ({ database }) => `It has no database "${database}". Make it: createdb "${database}".`,
  '42501': ({ user, database }) =>
    `"${user}" may not do this there: grant create on database "${database}" to "${user}", and let it own its schemas.`,
};

function explain(error: unknown, address: Address): ServerError {
  if (error instanceof ServerError) return error;
  const code = systemCode(error) ?? '';
  const remedy = REMEDIES[code]?.(address);
  if (remedy) {
    return new ServerError('database-settings', `PostgreSQL at ${address.label}: ${remedy}`, { cause: error });
  }
  return new ServerError(
    'database',
    `PostgreSQL at ${address.label} cannot be used now: ${code ? `${code}, ` : ''}${messageOf(error) || 'no reason given'}. Rounds go on; the index catches up when it is back. See that it runs and can be reached from here.`,
    { cause: error },
  );
}

class PostgresConnection implements Connection {
  readonly #client: Client;
  readonly #socket: Socket;
  readonly #address: Address;

  constructor(client: Client, socket: Socket, address: Address) {
    this.#client = client;
    this.#socket = socket;
    this.#address = address;
  }

  async query(text: string, params: readonly unknown[] = []): Promise<unknown[]> {
    try {
      const { rows } = await this.#client.query({ text, values: [...params], rowMode: 'array' });
      return rows as unknown[];
    } catch (error) {
      throw explain(error, this.#address);
    }
  }

  async close(): Promise<void> {
    await this.#client.end();
  }

  async end(): Promise<void> {
    // A client's own `end` says goodbye first, and would wait for a peer that is gone.
    this.#socket.destroy();
    await Promise.resolve();
  }
}

/** Takes the schema's lock for as long as the connection lives; the server that has it is the only one that writes there. */
async function takeSchema(connection: Connection, schema: string, address: Address): Promise<void> {
  const [row] = await connection.query('select pg_try_advisory_lock(hashtextextended($1, 0))', [schema]);
  if (!Array.isArray(row) || row[0] !== true) {
    throw new ServerError(
      'database',
      `Another server keeps its index in ${schema} of ${address.label}: one from a copy of this data folder, or one that has just ended. Stop it, or delete index.json in this folder to give it a schema of its own.`,
    );
  }
  await connection.query(`create schema if not exists "${schema}"`);
  await connection.query(`set search_path to "${schema}"`);
}

/** Throws ServerError 'database-settings' when `url` is none. Connects when opened. */
export function postgresPlace(url: string, dataDir: string): IndexPlace {
  const address = addressOf(url);
  return {
    name: address.label,
    openAfterMs: 0,
    async open(signal, lost) {
      const schema = schemaOf(dataDir);
      const socket = new Socket();
      const client = new Client({
        stream: () => socket,
        connectionString: url,
        connectionTimeoutMillis: CONNECT_MS,
        query_timeout: QUERY_MS,
        keepAlive: true,
        application_name: 'weft',
      });
      const connection = new PostgresConnection(client, socket, address);
      let opened = false;
      let gone = false;
      const ended = (error: unknown) => {
        if (opened && !gone) lost(explain(error, address));
        gone = true;
      };
      client.on('error', ended);
      client.on('end', () => ended(new Error('the connection ended')));
      const abort = () => void connection.end();
      signal.addEventListener('abort', abort, { once: true });
      try {
        await client.connect();
        await takeSchema(connection, schema, address);
        await migrate(connection);
        opened = true;
        return connection;
      } catch (error) {
        await connection.end();
        throw explain(error, address);
      } finally {
        signal.removeEventListener('abort', abort);
      }
    },
  };
}
