// One server a data folder. The lock is a file with the owner's process id; a lock of a dead process is stale, and so is
// one with our own id (a container's server is always process 1).
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { ServerError, systemCode } from '../errors.ts';

/** Whether there is a process of this id, whosever it is. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it lives, but belongs to somebody else.
    return systemCode(error) === 'EPERM';
  }
}

/** Takes the folder's lock; returns a function that gives it back. Throws ServerError 'data-dir-locked'. */
export function lockFolder(dataDir: string): () => void {
  // Uploads are nobody else's to read; a folder that is there already keeps the permissions its owner gave it.
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const path = join(dataDir, 'lock');
  for (let attempt = 0; ; attempt++) {
    try {
      const handle = openSync(path, 'wx');
      writeSync(handle, `${process.pid}\n`);
      closeSync(handle);
      return () => rmSync(path, { force: true });
    } catch (error) {
      if (systemCode(error) !== 'EEXIST' || attempt >= 3) throw error;
    }
    const pid = Number.parseInt(readFileSync(path, 'utf8'), 10);
    if (Number.isInteger(pid) && pid !== process.pid && isAlive(pid)) {
      throw new ServerError(
        'data-dir-locked',
        `Another server (process ${pid}) uses ${dataDir}. Stop it, or choose another --data-dir.`,
      );
    }
    rmSync(path, { force: true });
  }
}
