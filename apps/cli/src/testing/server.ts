// A server for tests of commands: the demo's model and tasks, empty pages, its index where the test's project wants it.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createServer, type RunningServer, type ServerOptions } from '@weft/server';
import { pino } from 'pino';

export const TOKEN = 'a token for tests';

const asset = (path: string): string => fileURLToPath(new URL(`../../../../assets/${path}`, import.meta.url));

/** Starts it with everything it keeps below `root`. */
export function startTestServer(root: string, options: Partial<ServerOptions> = {}): Promise<RunningServer> {
  const pagesDir = join(root, 'pages');
  mkdirSync(pagesDir);
  for (const page of ['index.html', 'admin.html']) writeFileSync(join(pagesDir, page), '<!doctype html>');
  const databaseUrl = process.env.WEFT_TEST_DATABASE_URL;
  return createServer({
    dataDir: join(root, 'data'),
    modelDir: asset('models/stories260K'),
    tasksDir: asset('tasks/natural-instructions'),
    pagesDir,
    port: 0,
    host: '127.0.0.1',
    adminToken: TOKEN,
    selectionGraceMs: 200,
    restMs: 50,
    mergeWorkers: 1,
    logger: pino({ level: 'error' }),
    ...(databaseUrl ? { databaseUrl } : {}),
    ...options,
  });
}
