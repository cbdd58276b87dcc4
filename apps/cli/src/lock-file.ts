// A lock as a file with the holder's process id, for work that two processes must not do at once in one folder.
import { readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { CommandError } from './command.ts';
import { systemCode } from './disk.ts';

const LOOK_AGAIN_MS = 300;

/** Locks of this process: a file with our own id that is not among them was left by a process that had the id before us. */
const held = new Set<string>();

/**
 * Takes the lock, waiting while another holds it; `onWait` is told once who. Returns what lets the next one in. Throws
 * the reason of `signal`, or CommandError 'unwritable'.
 */
export async function takeLock(
  file: string,
  signal: AbortSignal,
  onWait: (holder: number) => void,
): Promise<() => Promise<void>> {
  for (let told = false; ; ) {
    signal.throwIfAborted();
    if (await create(file)) {
      held.add(file);
      return async () => {
        held.delete(file);
        await rm(file, { force: true });
      };
    }
    const holder = await holderOf(file);
    if (holder !== null && isAlive(holder, file)) {
      if (!told) onWait(holder);
      told = true;
      await pause(LOOK_AGAIN_MS);
    } else {
      // Left behind by a process that was killed.
      await rm(file, { force: true });
    }
  }
}

async function create(file: string): Promise<boolean> {
  try {
    await writeFile(file, String(process.pid), { flag: 'wx' });
    return true;
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return false;
    throw new CommandError('unwritable', `${file} cannot be written; choose another folder.`, { cause });
  }
}

async function holderOf(file: string): Promise<number | null> {
  try {
    const pid = Number(await readFile(file, 'utf8'));
    return Number.isInteger(pid) && pid > 0 ? pid : null;
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null;
    throw cause;
  }
}

function isAlive(pid: number, file: string): boolean {
  if (pid === process.pid) return held.has(file);
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it lives and belongs to somebody else.
    return systemCode(error) === 'EPERM';
  }
}
