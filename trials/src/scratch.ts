// A folder of a trial's own, and a server on one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CROWD_LIMITS, ServerProcess } from './server-process.ts';

/** An empty folder for one trial's server. */
export function scratchFolder(name: string): { readonly path: string; remove(): void } {
  const root = mkdtempSync(join(tmpdir(), `weft-${name}-`));
  return { path: join(root, 'data'), remove: () => rmSync(root, { recursive: true, force: true }) };
}

/** Runs a trial on a server of its own with an empty folder; both are gone afterwards. */
export async function withServer<T>(name: string, work: (server: ServerProcess) => Promise<T>): Promise<T> {
  const folder = scratchFolder(name);
  try {
    const server = await ServerProcess.start({ dataDir: folder.path, flags: CROWD_LIMITS });
    try {
      return await work(server);
    } finally {
      await server.end();
    }
  } finally {
    folder.remove();
  }
}
