// The index in PGlite, in a worker thread: the default, which needs nothing installed. One data folder, one opener.
import { rmSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import { messageOf, ServerError } from '../errors.ts';
import { workerPath } from '../worker-path.ts';
import type { Connection, IndexPlace } from './connection.ts';
import { migrate } from './migrate.ts';

export type DatabaseQuestion =
  | { readonly id: number; readonly kind: 'query'; readonly sql: string; readonly params: readonly unknown[] }
  | { readonly id: number; readonly kind: 'close' };
export type DatabaseAnswer =
  | { readonly id: number; readonly rows: unknown[] }
  | { readonly id: number; readonly error: string };

/** Making a new database keeps a core busy for seconds, and rounds come first. */
const OPEN_AFTER_MS = 10_000;

/** The worker thread, asked by messages. */
class EmbeddedConnection implements Connection {
  readonly #worker: Worker;
  readonly #open = new Map<number, { resolve: (rows: unknown[]) => void; reject: (error: Error) => void }>();
  #next = 0;
  #ended: Error | null = null;

  constructor(folder: string, lost: (error: Error) => void) {
    this.#worker = new Worker(workerPath('database-worker'), {
      workerData: { folder },
      // Flags of this process, such as --input-type, are not the thread's.
      execArgv: [],
    });
    this.#worker.on('message', (answer: DatabaseAnswer) => {
      const asked = this.#open.get(answer.id);
      this.#open.delete(answer.id);
      if ('rows' in answer) asked?.resolve(answer.rows);
      else asked?.reject(new ServerError('database', `The history index failed: ${answer.error}`));
    });
    const fail = (error: Error): void => {
      if (this.#ended) return;
      this.#ended = error;
      for (const { reject } of this.#open.values()) reject(error);
      this.#open.clear();
      lost(error);
    };
    this.#worker.on('error', (cause) =>
      fail(new ServerError('database', `The history index failed: ${messageOf(cause)}`, { cause })),
    );
    this.#worker.on('exit', () => fail(new ServerError('database', 'The history index has ended.')));
  }

  #ask(question: DatabaseQuestion): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      this.#open.set(question.id, { resolve, reject });
      this.#worker.postMessage(question);
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
    await this.#worker.terminate();
  }
}

/** `folder`: PGlite's own. A damaged one is deleted and made again: it is only an index. */
export function embeddedPlace(folder: string, logger: Logger): IndexPlace {
  const tryOpen = async (signal: AbortSignal, lost: (error: Error) => void): Promise<Connection> => {
    const connection = new EmbeddedConnection(folder, lost);
    const abort = () => void connection.end();
    signal.addEventListener('abort', abort, { once: true });
    try {
      await migrate(connection);
      return connection;
    } catch (error) {
      await connection.end();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
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
