// The keys of a state folder: one a run, so that a volunteer's runs cannot be linked by them. The single key that earlier versions
// kept still stands for the runs made before this folder had any other.
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { exportKeys, generateKeys, type Identities, type Identity, identityOf, importKeys } from '@weft/volunteer';
import { CommandError } from '../command.ts';
import { keepFile } from './keep-file.ts';

/** Volunteers and evaluators of one folder have keys of their own and share the downloaded files. */
export type Role = 'volunteer' | 'evaluator';

/** Where the key for a run is, or would be. */
export const keyFile = (folder: string, role: Role, runId: string): string =>
  join(folder, 'keys', role, `${runId}.json`);

const oldKeyFile = (folder: string, role: Role): string => join(folder, `${role}-key.json`);

/** Notes when the old key stopped being the only one; null where there is no old key. */
function oldKeyUntil(folder: string, role: Role, now: Date): string | null {
  if (!existsSync(oldKeyFile(folder, role))) return null;
  const note = join(folder, 'keys', `${role}-until.json`);
  if (!existsSync(note)) keepFile(note, `${JSON.stringify({ until: now.toISOString() })}\n`);
  const kept: unknown = JSON.parse(readFileSync(note, 'utf8'));
  if (kept !== null && typeof kept === 'object' && 'until' in kept && typeof kept.until === 'string') return kept.until;
  throw damaged(note, undefined);
}

/**
 * Keys as runs ask for them, made where there is none unless `makes` is false, which then rejects with CommandError 'no-key'. A
 * file that holds no key rejects with 'state-damaged'.
 */
export function openIdentities(folder: string, role: Role, now: Date, options: { makes?: boolean } = {}): Identities {
  mkdirSync(join(folder, 'keys', role), { recursive: true });
  const until = oldKeyUntil(folder, role, now);
  return {
    async of({ runId, createdAt }) {
      const file = keyFile(folder, role, runId);
      const known = await readIdentity(file);
      if (known) return known;
      const old = until !== null && createdAt < until ? await readIdentity(oldKeyFile(folder, role)) : null;
      if (old) return old;
      if (options.makes === false) {
        throw new CommandError('no-key', `${folder} has no key for run ${runId}: nothing was done there with it.`);
      }
      const keys = await generateKeys(true);
      keepFile(file, `${JSON.stringify(await exportKeys(keys))}\n`);
      return identityOf(keys);
    },
  };
}

/** Deletes the key for a run; after it nobody can speak for what was done with it. */
export function removeKey(folder: string, role: Role, runId: string): void {
  rmSync(keyFile(folder, role, runId), { force: true });
}

async function readIdentity(file: string): Promise<Identity | null> {
  if (!existsSync(file)) return null;
  try {
    return await identityOf(await importKeys(JSON.parse(readFileSync(file, 'utf8')) as JsonWebKey));
  } catch (cause) {
    throw damaged(file, cause);
  }
}

const damaged = (file: string, cause: unknown): CommandError =>
  new CommandError('state-damaged', `${file} holds no readable key. Remove it to take part under a new one.`, {
    cause,
  });
