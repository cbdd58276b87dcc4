// The embedded database in a thread of its own: PGlite answers one statement at a time and would hold up the sockets.
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';
import type { DatabaseAnswer, DatabaseQuestion } from './embedded.ts';

const port = parentPort;
if (!port) throw new Error('database-worker is a worker thread; it is started by the server.');

const opened = PGlite.create({ dataDir: String((workerData as { folder: unknown }).folder) });

async function answer(question: DatabaseQuestion): Promise<unknown[]> {
  const database = await opened;
  if (question.kind === 'close') {
    await database.close();
    return [];
  }
  const { rows } = await database.query(question.sql, [...question.params], { rowMode: 'array' });
  return rows;
}

port.on('message', (question: DatabaseQuestion) => {
  answer(question).then(
    (rows) => port.postMessage({ id: question.id, rows } satisfies DatabaseAnswer),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      port.postMessage({ id: question.id, error: message } satisfies DatabaseAnswer);
    },
  );
});
