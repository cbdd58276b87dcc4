// A volunteer's folder on disk: its keys, its receipts, the pieces it has downloaded, and a lock, because one key is one
// volunteer.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Identities } from '@weft/volunteer';
import { CommandError } from '../command.ts';
import { openIdentities, type Role } from './keys.ts';

export interface StateFolder {
  readonly path: string;
  readonly identities: Identities;
  /** Lets the next one in. */
  close(): void;
}

/** Where `weft join` keeps its things when nobody says otherwise. */
export function defaultStateFolder(): string {
  return join(process.env.XDG_STATE_HOME ?? join(homedir(), '.local', 'state'), 'weft');
}

const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

/**
 * Opens the folder, making it on the first visit. Throws CommandError 'state-in-use' while another process has it,
 * 'state-unusable' for a folder that cannot be written. A key that cannot be read is told of when its run asks for it.
 */
export function openStateFolder(path: string, role: Role): StateFolder {
  const folder = resolve(path);
  try {
    mkdirSync(folder, { recursive: true });
  } catch (cause) {
    throw new CommandError('state-unusable', `${folder} cannot be made or written. Choose another with --state-dir.`, {
      cause,
    });
  }
  const unlock = lock(folder, role);
  try {
    return { path: folder, identities: openIdentities(folder, role, new Date()), close: unlock };
  } catch (error) {
    unlock();
    throw error;
  }
}

function lock(folder: string, role: Role): () => void {
  const file = join(folder, `${role}.lock`);
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx' });
      return () => rmSync(file, { force: true });
    } catch (cause) {
      if (systemCode(cause) !== 'EEXIST') {
        throw new CommandError('state-unusable', `${file} cannot be written. Choose another folder with --state-dir.`, {
          cause,
        });
      }
      const holder = holderOf(file);
      if (holder !== null && isAlive(holder)) {
        throw new CommandError(
          'state-in-use',
          `${folder} is in use by the ${role} of process ${holder}. Give each its own --state-dir, or stop that one.`,
          { cause },
        );
      }
      // Left behind by a process that was killed.
      rmSync(file, { force: true });
    }
  }
  throw new CommandError('state-in-use', `${folder} is being taken by another process. Try again.`);
}

function holderOf(file: string): number | null {
  try {
    const pid = Number(readFileSync(file, 'utf8'));
    return Number.isInteger(pid) && pid > 0 ? pid : null;
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null;
    throw cause;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it lives and belongs to somebody else.
    return systemCode(error) === 'EPERM';
  }
}
