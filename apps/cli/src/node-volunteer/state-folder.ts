// A volunteer's folder on disk: its key, the pieces it has downloaded, and a lock, because one key is one volunteer.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { exportKeys, generateKeys, type Identity, identityOf, importKeys } from '@weft/volunteer';
import { CommandError } from '../command.ts';

/** Volunteers and evaluators of one folder have keys of their own and share the downloaded files. */
export type Role = 'volunteer' | 'evaluator';

export interface StateFolder {
  readonly path: string;
  readonly identity: Identity;
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
 * Opens the folder, making it and its key on the first visit. Throws CommandError 'state-in-use' while another process has
 * it, 'state-damaged' for a key that cannot be read, 'state-unusable' for a folder that cannot be written.
 */
export async function openStateFolder(path: string, role: Role): Promise<StateFolder> {
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
    return { path: folder, identity: await openIdentity(join(folder, `${role}-key.json`)), close: unlock };
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

async function openIdentity(file: string): Promise<Identity> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw damaged(file, cause);
    const keys = await generateKeys(true);
    writeFileSync(file, `${JSON.stringify(await exportKeys(keys))}\n`, { mode: 0o600 });
    return identityOf(keys);
  }
  try {
    return await identityOf(await importKeys(JSON.parse(text) as JsonWebKey));
  } catch (cause) {
    throw damaged(file, cause);
  }
}

const damaged = (file: string, cause: unknown): CommandError =>
  new CommandError('state-damaged', `${file} holds no readable key. Remove it to take part under a new one.`, {
    cause,
  });
