// The embedded database in a process of its own: PGlite answers one statement at a time and would hold up the sockets, and
// its memory is not given back while its process lives. Ends with the server, however that ends.
import { constants, setPriority } from 'node:os';
import { PGlite } from '@electric-sql/pglite';
import type { DatabaseAnswer, DatabaseQuestion } from './embedded.ts';

const folder = process.argv[2];
if (!process.send || folder === undefined)
  throw new Error('database-worker is a child process that the server starts.');

// Rounds come first.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
// Ctrl-C and a service manager's SIGTERM reach this process too; the server decides when it ends.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => process.exit(0));

const opened = PGlite.create({ dataDir: folder });
// Whoever asks is told.
opened.catch(() => undefined);

async function answer(question: DatabaseQuestion): Promise<unknown[]> {
  const database = await opened;
  if (question.kind === 'close') {
    await database.close();
    return [];
  }
  const { rows } = await database.query(question.sql, [...question.params], { rowMode: 'array' });
  return rows;
}

const tell = (message: DatabaseAnswer): void => void process.send?.(message);

process.on('message', (question: DatabaseQuestion) => {
  answer(question).then(
    (rows) => tell({ id: question.id, rows }),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      tell({ id: question.id, error: message });
    },
  );
});
