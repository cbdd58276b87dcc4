// One file from a hub to the disk: what arrives goes to NAME.part, a break is mended with a Range request, and only content
// with the stated hash gets the file's name. The hub package's own Blob keeps nothing when a connection breaks, and its
// file information costs a request for what the listing has already said; so the bytes are fetched from the plain
// resolve address.
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CommandError, formatBytes } from '../command.ts';
import { systemCode, writeFailure } from '../disk.ts';
import { type HubRequests, pauseAfter, reason } from './hub.ts';
import type { HubFile } from './listing.ts';

export interface FetchContext {
  readonly requests: HubRequests;
  readonly signal: AbortSignal;
  /** More bytes stand on the disk; fewer when some must be fetched again. */
  onBytes(change: number): void;
  note(text: string): void;
}

const READ_BYTES = 1 << 20;
const KEPT = 'What has arrived is kept; run the same command again to go on.';

/**
 * Puts `file` at `target`, from `url`, and returns how many bytes the network had to carry: none when it stands there
 * already and is what the hub states. Throws CommandError 'hub-damaged', 'disk-full', 'unwritable', what the requests
 * throw, or the reason of the signal.
 */
export async function fetchFile(file: HubFile, url: string, target: string, context: FetchContext): Promise<number> {
  if (await isIntact(file, target, context)) return 0;
  const part = `${target}.part`;
  let carried = 0;
  // A second time, because what was kept from an earlier run may be what is damaged.
  for (let round = 0; round < 2; round += 1) {
    const outcome = await fill(file, url, part, context);
    carried += outcome.carried;
    if (outcome.hash === file.hash) {
      await rename(part, target).catch(failedAt(target));
      return carried;
    }
    context.note(`${file.path}: what arrived is not what the hub states, and is thrown away`);
    context.onBytes(-file.bytes);
    await rm(part, { force: true });
  }
  throw new CommandError(
    'hub-damaged',
    `${file.path} arrived twice with other content than the hub states (${file.algorithm} ${file.hash}). Something on the way changes it, such as a proxy or a mirror (HF_ENDPOINT); try another way.`,
  );
}

/** A hash of `file`'s content as the hub computes it; git puts the size before a blob. */
function hashFor(file: HubFile): Hash {
  return file.algorithm === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${file.bytes}\0`);
}

/** Whether the file stands at `target` whole and undamaged. One that is not is removed. */
async function isIntact(file: HubFile, target: string, context: FetchContext): Promise<boolean> {
  const handle = await open(target, 'r').catch((cause) => {
    if (systemCode(cause) === 'ENOENT') return null;
    throw new CommandError('unreadable', `${target} cannot be read; check that it is a file you may read.`, { cause });
  });
  if (!handle) return false;
  try {
    const hash = hashFor(file);
    const { size } = await handle.stat();
    if (size === file.bytes) {
      await digestStart(handle, size, hash, context);
      if (hash.digest('hex') === file.hash) return true;
      context.onBytes(-size);
    }
  } finally {
    await handle.close();
  }
  context.note(`${basename(target)} is not what the hub states for ${file.path}, and is fetched again`);
  await rm(target);
  return false;
}

/** Takes the first `size` bytes into the hash. */
async function digestStart(handle: FileHandle, size: number, hash: Hash, context: FetchContext): Promise<void> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, size));
  for (let offset = 0; offset < size; ) {
    context.signal.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, size - offset), offset);
    if (bytesRead === 0) throw new CommandError('unreadable', 'A file became shorter while it was read. Try again.');
    hash.update(buffer.subarray(0, bytesRead));
    offset += bytesRead;
    context.onBytes(bytesRead);
  }
}

/** Brings the part to its full length, and says the hash of what it then holds. */
async function fill(
  file: HubFile,
  url: string,
  part: string,
  context: FetchContext,
): Promise<{ hash: string; carried: number }> {
  const { requests, signal, note, onBytes } = context;
  const handle = await open(part, constants.O_RDWR | constants.O_CREAT).catch(failedAt(part));
  try {
    let hash = hashFor(file);
    let offset = 0;
    let carried = 0;
    const restart = async () => {
      onBytes(-offset);
      offset = 0;
      hash = hashFor(file);
      await handle.truncate(0);
    };
    const { size } = await handle.stat();
    if (size > file.bytes) await restart();
    else {
      await digestStart(handle, size, hash, context);
      offset = size;
      if (offset > 0 && offset < file.bytes)
        note(`${file.path}: going on from ${formatBytes(offset)} of ${formatBytes(file.bytes)}`);
    }
    let furthest = offset;
    for (let failures = 0; offset < file.bytes; ) {
      const headers = { 'accept-encoding': 'identity', ...(offset > 0 ? { range: `bytes=${offset}-` } : {}) };
      const response = await requests.fetch(url, { headers, signal });
      if (offset > 0 && !continuesAt(response, offset)) {
        note(`${file.path}: the hub does not go on in the middle of it, so it is fetched from its start`);
        await restart();
        // A whole file came in place of the rest; anything else is no part of it.
        if (response.status !== 200) {
          await response.body?.cancel();
          continue;
        }
      }
      let broken: unknown = null;
      for await (const chunk of chunksOf(response, requests.patience.silenceMs, (cause) => {
        broken = cause;
      })) {
        // More than stated: left out here and found by the hash.
        const bytes = chunk.subarray(0, file.bytes - offset);
        await writeAt(handle, bytes, offset, part);
        hash.update(bytes);
        offset += bytes.length;
        carried += bytes.length;
        onBytes(bytes.length);
        if (bytes.length < chunk.length) break;
      }
      signal.throwIfAborted();
      if (offset === file.bytes) break;
      // Counted from the furthest point: a hub that cannot go on in the middle must not keep us here for ever.
      failures = offset > furthest ? 1 : failures + 1;
      furthest = Math.max(furthest, offset);
      const why = broken === null ? 'it ended early' : reason(broken);
      if (failures >= requests.patience.attempts) {
        throw new CommandError('hub-unreachable', `${file.path} breaks off again and again (${why}). ${KEPT}`, {
          cause: broken,
        });
      }
      note(`${file.path}: the connection broke at ${formatBytes(offset)} of ${formatBytes(file.bytes)} (${why})`);
      await pause(pauseAfter(failures, requests.patience), undefined, { signal }).catch(() => signal.throwIfAborted());
    }
    // On the disk before it gets its name, so that a name always means the whole content.
    await handle.sync().catch(failedAt(part));
    return { hash: hash.digest('hex'), carried };
  } finally {
    await handle.close();
  }
}

/** Whether this is the rest of the file from `offset` on. */
function continuesAt(response: Response, offset: number): boolean {
  return response.status === 206 && response.headers.get('content-range')?.startsWith(`bytes ${offset}-`) === true;
}

/** The body as it arrives. Ends where it breaks off or falls silent, and then tells `onBreak` why. */
async function* chunksOf(
  response: Response,
  silenceMs: number,
  onBreak: (cause: unknown) => void,
): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  const reader = response.body.getReader();
  // A body that has failed already refuses to be cancelled; there is nothing left to free then.
  const cancel = () => reader.cancel().catch(() => {});
  const silence = setTimeout(() => {
    onBreak(new Error(`nothing arrived for ${silenceMs / 1000} s`));
    void cancel();
  }, silenceMs);
  try {
    for (;;) {
      const next = await reader.read();
      silence.refresh();
      if (next.done) return;
      yield next.value;
    }
  } catch (cause) {
    onBreak(cause);
  } finally {
    clearTimeout(silence);
    await cancel();
  }
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, offset: number, path: string): Promise<void> {
  try {
    for (let written = 0; written < bytes.length; ) {
      const { bytesWritten } = await handle.write(bytes, written, bytes.length - written, offset + written);
      written += bytesWritten;
    }
  } catch (cause) {
    failedAt(path)(cause);
  }
}

function failedAt(path: string): (cause: unknown) => never {
  return (cause) => {
    throw writeFailure(path, cause, KEPT);
  };
}
