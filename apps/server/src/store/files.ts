// Files that survive a kill of the process or the machine: written beside their place, flushed, then renamed into it.
// Synchronous on purpose: the caller must not act on, or tell anybody of, what is not on disk yet, and the files are small.
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ProtocolError } from '@weft/protocol';
import type { z } from 'zod';
import { messageOf, ServerError, systemCode } from '../errors.ts';

/** Flushes a folder's list of names without waiting in the event loop. As {@link syncFolder}. */
export async function syncFolderLater(path: string): Promise<void> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    if (systemCode(error) === 'EISDIR' || systemCode(error) === 'EPERM') return null;
    throw error;
  });
  try {
    await handle?.sync();
  } finally {
    await handle?.close();
  }
}

/** Flushes a folder's list of names. Some systems cannot open folders; there a rename is durable by itself. */
export function syncFolder(path: string): void {
  let handle: number;
  try {
    handle = openSync(path, 'r');
  } catch (error) {
    if (systemCode(error) === 'EISDIR' || systemCode(error) === 'EPERM') return;
    throw error;
  }
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** Whether a write failed because the disk, or the user's share of it, is full. Looks through causes. */
export function isDiskFull(error: unknown): boolean {
  const code = systemCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'storage-full') return true;
  return error instanceof Error && error.cause !== undefined && isDiskFull(error.cause);
}

/** A full disk as the ProtocolError 'storage-full', which a peer can be told; every other error as it is. */
export function diskError(what: string, cause: unknown): unknown {
  if (!isDiskFull(cause)) return cause;
  return new ProtocolError('storage-full', `The server's disk is full: ${what} could not be kept. Try again later.`, {
    retryAfterMs: 60_000,
    cause,
  });
}

/** Runs `work`; a full disk becomes the ProtocolError 'storage-full'. */
export function withDisk<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw diskError(what, cause);
  }
}

function writeAll(handle: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(handle, bytes, written);
}

export interface WriteOptions {
  /** False for what may be lost. */
  readonly flush?: boolean;
  /** Permissions; 0o600 for what the server's own user alone may read. */
  readonly mode?: number;
}

/** Writes a whole file, durably: after this returns, the file has the new content whatever happens; before, the old. */
export function writeDurably(path: string, content: Uint8Array | string, options: WriteOptions = {}): void {
  const flush = options.flush !== false;
  const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
  const temporary = temporaryFor(path);
  withDisk(path, () => {
    mkdirSync(dirname(path), { recursive: true });
    const handle = openSync(temporary, 'wx', options.mode);
    try {
      writeAll(handle, bytes);
      if (flush) fsyncSync(handle);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    } finally {
      closeSync(handle);
    }
    renameSync(temporary, path);
    if (flush) syncFolder(dirname(path));
  });
}

/**
 * The same without holding up the event loop, by way of the file `temporary`. Nothing is written, and the file takes its place,
 * only if `wanted` says so when it comes to that; resolves with whether it did.
 */
export async function writeLater(
  path: string,
  temporary: string,
  content: string,
  wanted: () => boolean,
): Promise<boolean> {
  try {
    const handle = await open(temporary, 'wx');
    try {
      if (wanted()) await handle.writeFile(content);
      if (wanted()) await handle.sync();
    } finally {
      await handle.close();
    }
    // Nothing waits between the question and the renaming.
    if (!wanted()) {
      rmSync(temporary, { force: true });
      return false;
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncFolder(dirname(path));
  return true;
}

/** Where a file is written before it takes its place. What is left of these is removed at a start. */
export const temporaryFor = (path: string): string => `${path}.${randomBytes(4).toString('hex')}.tmp`;

export function writeJson(path: string, value: unknown, options: WriteOptions = {}): void {
  writeDurably(path, `${JSON.stringify(value, null, 1)}\n`, options);
}

/** Reads and checks a JSON file; null when there is none. Throws ServerError 'data-dir-corrupt' naming the file. */
export function readJson<T extends z.ZodType>(path: string, schema: T): z.output<T> | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new ServerError(
      'data-dir-corrupt',
      `${path} is not what this version of Weft wrote: ${messageOf(cause)} Restore it from a backup, or start with an empty --data-dir.`,
      { cause },
    );
  }
}
