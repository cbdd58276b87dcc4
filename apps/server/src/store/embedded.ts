// The index in PGlite, in a child process: the default, which needs nothing installed. One data folder, one opener. Its memory
// and its stalls are not the server's, and its death costs nothing but being opened again (docs/decisions/0016).
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf, ServerError } from '../errors.ts';
import { workerPath } from '../worker-path.ts';
import type { Connection, IndexPlace } from './connection.ts';
import { isAlive } from './lock.ts';
import { migrate } from './migrate.ts';

export type DatabaseQuestion =
  | { readonly id: number; readonly kind: 'query'; readonly sql: string; readonly params: readonly unknown[] }
  | { readonly id: number; readonly kind: 'close' };
export type DatabaseAnswer =
  | { readonly id: number; readonly rows: unknown[] }
  | { readonly id: number; readonly error: string };

/** Making a new database keeps a core busy for seconds, and rounds come first. */
const OPEN_AFTER_MS = 10_000;
/** How long the process of a killed server may take to notice that. */
const ORPHAN_MS = 10_000;
const LOOK_EVERY_MS = 50;

/** Holds the process that has the folder open. */
const pidPathOf = (folder: string): string => `${folder}.pid`;

/** The child process, asked by messages. */
class EmbeddedConnection implements Connection {
  readonly #child: ChildProcess;
  readonly #gone: Promise<unknown>;
  readonly #open = new Map<number, { resolve: (rows: unknown[]) => void; reject: (error: Error) => void }>();
  readonly #fail: (error: Error) => void;
  #next = 0;
  #ended: Error | null = null;

  constructor(folder: string, lost: (error: Error) => void) {
    this.#fail = (error) => {
      if (this.#ended) return;
      this.#ended = error;
      for (const { reject } of this.#open.values()) reject(error);
      this.#open.clear();
      lost(error);
    };
    this.#child = fork(workerPath('database-worker'), [folder], {
      serialization: 'advanced',
      // V8's quick WebAssembly compiler alone: a third of the time to open, 60 MB less, and queries are few. Flags of this
      // process, such as --input-type, are not the child's.
      execArgv: ['--liftoff-only'],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const gone = once(this.#child, 'exit');
    this.#gone = gone.catch(() => undefined);
    if (this.#child.pid !== undefined) writeFileSync(pidPathOf(folder), `${this.#child.pid}\n`);
    this.#child.on('message', (answer: DatabaseAnswer) => {
      const asked = this.#open.get(answer.id);
      this.#open.delete(answer.id);
      if ('rows' in answer) asked?.resolve(answer.rows);
      else asked?.reject(new ServerError('database', `The history index failed: ${answer.error}`));
    });
    this.#child.on('error', (cause) =>
      this.#fail(new ServerError('database', `The history index failed: ${messageOf(cause)}`, { cause })),
    );
    this.#child.on('exit', (code, signal) => {
      rmSync(pidPathOf(folder), { force: true });
      this.#fail(
        new ServerError('database', `The process of the history index has ended (${signal ?? `code ${code}`}).`),
      );
    });
  }

  #ask(question: DatabaseQuestion): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      this.#open.set(question.id, { resolve, reject });
      this.#child.send(question, (cause) => {
        if (cause) this.#fail(new ServerError('database', `The history index failed: ${cause.message}`, { cause }));
      });
    });
  }

  query(text: string, params: readonly unknown[] = []): Promise<unknown[]> {
    return this.#ask({ id: this.#next++, kind: 'query', sql: text, params });
  }

  async close(): Promise<void> {
    await this.#ask({ id: this.#next++, kind: 'close' });
    await this.end();
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await this.#gone;
  }
}

/**
 * Waits for the process that a killed server has left: two of them would ruin the folder. Throws ServerError 'database' when
 * it does not end.
 */
async function orphanEnded(folder: string, signal: AbortSignal): Promise<void> {
  const path = pidPathOf(folder);
  if (!existsSync(path)) return;
  const pid = Number.parseInt(readFileSync(path, 'utf8'), 10);
  for (let waited = 0; Number.isInteger(pid) && pid !== process.pid && isAlive(pid); waited += LOOK_EVERY_MS) {
    if (waited >= ORPHAN_MS) {
      throw new ServerError(
        'database',
        `Process ${pid} still has the history index in ${folder} open. End it; if it is none of Weft's, delete ${path}.`,
      );
    }
    await pause(LOOK_EVERY_MS, undefined, { signal });
  }
}

/** `folder`: PGlite's own. A damaged one is deleted and made again: it is only an index. */
export function embeddedPlace(folder: string, logger: Logger): IndexPlace {
  const opening = async (
    signal: AbortSignal,
    lost: (error: Error) => void,
    work: (connection: Connection) => Promise<unknown>,
  ): Promise<Connection> => {
    signal.throwIfAborted();
    const connection = new EmbeddedConnection(folder, lost);
    const abort = () => void connection.end();
    signal.addEventListener('abort', abort, { once: true });
    try {
      await work(connection);
      return connection;
    } catch (error) {
      await connection.end();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  };
  const tryOpen = async (signal: AbortSignal, lost: (error: Error) => void): Promise<Connection> => {
    // Making a database takes half a gigabyte that its process keeps; one that only opens it does not need it.
    if (!existsSync(join(folder, 'PG_VERSION'))) {
      await opening(
        signal,
        () => undefined,
        (maker) => maker.close(),
      );
    }
    return opening(signal, lost, migrate);
  };
  return {
    name: folder,
    openAfterMs: OPEN_AFTER_MS,
    async open(signal, lost) {
      let opened = false;
      // What ends while it opens is an error of the opening.
      const told = (error: Error) => {
        if (opened) lost(error);
      };
      await orphanEnded(folder, signal);
      try {
        const connection = await tryOpen(signal, told);
        opened = true;
        return connection;
      } catch (error) {
        if (signal.aborted) throw error;
        logger.warn({ err: error }, 'the history index is damaged and is made again');
        rmSync(folder, { recursive: true, force: true });
        const connection = await tryOpen(signal, told);
        opened = true;
        return connection;
      }
    },
  };
}
