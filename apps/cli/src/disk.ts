// The disk as commands meet it: its errors in words, and whether something fits before it is begun.
import { statfs } from 'node:fs/promises';
import { CommandError, formatBytes } from './command.ts';

/** The code of a system call's error, such as ENOENT; undefined for anything else. */
export const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

export const unreadable = (path: string, cause: unknown): CommandError =>
  new CommandError('unreadable', `${path} cannot be read; check that it is a file you may read.`, { cause });

/** Whether a write failed because the disk, or the user's share of it, is full. */
export const isDiskFull = (error: unknown): boolean => ['ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '');

/** What failed while `path` was written: CommandError 'disk-full' or 'unwritable'. `kept` says what becomes of the work so far. */
export function writeFailure(path: string, cause: unknown, kept = ''): CommandError {
  const after = kept === '' ? '' : ` ${kept}`;
  return isDiskFull(cause)
    ? new CommandError('disk-full', `The disk is full at ${path}. Free some space or choose another.${after}`, {
        cause,
      })
    : new CommandError('unwritable', `${path} cannot be written; choose another place.${after}`, { cause });
}

/** Refuses what cannot fit into `folder`. Throws CommandError 'disk-full'; `remedy` says where else it could go. */
export async function requireSpace(folder: string, bytes: number, remedy: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bytes <= bavail * bsize) return;
  throw new CommandError(
    'disk-full',
    `${formatBytes(bytes)} are to be written and ${formatBytes(bavail * bsize)} are free at ${folder}. Free some space, or ${remedy}.`,
  );
}
