// Uploads on their way: one file and one note a lease, so that a broken line or a restarted server goes on where the last
// acknowledged byte was.
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ProtocolError, type UploadBegin, uploadBeginSchema } from '@weft/protocol';
import { systemCode } from '../errors.ts';
import { readJson, withDisk, writeJson } from '../store/files.ts';

export class PartialUploads {
  readonly #folder: string;
  /** The last write of each lease: chunks of one upload never overtake each other. */
  readonly #queues = new Map<string, Promise<unknown>>();

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  #path(leaseId: string): string {
    return join(this.#folder, `${leaseId}.part`);
  }

  #notePath(leaseId: string): string {
    return join(this.#folder, `${leaseId}.json`);
  }

  /** Bytes kept so far. */
  size(leaseId: string): number {
    const path = this.#path(leaseId);
    return existsSync(path) ? statSync(path).size : 0;
  }

  /** What was announced for this lease, or null. */
  announced(leaseId: string): UploadBegin | null {
    return readJson(this.#notePath(leaseId), uploadBeginSchema);
  }

  /** Opens an upload or finds the same one again; returns the offset to go on from. */
  begin(begin: UploadBegin): Promise<number> {
    return this.#inOrder(begin.leaseId, async () => {
      const known = this.announced(begin.leaseId);
      if (known?.sha256 !== begin.sha256 || known.bytes !== begin.bytes)
        rmSync(this.#path(begin.leaseId), { force: true });
      writeJson(this.#notePath(begin.leaseId), begin, { flush: false });
      return this.size(begin.leaseId);
    });
  }

  /** Appends a chunk that starts where the upload stands; one that lies wholly before that was only repeated. */
  chunk(leaseId: string, offset: number, bytes: Uint8Array): Promise<number> {
    return this.#inOrder(leaseId, async () => {
      const begin = this.announced(leaseId);
      if (!begin)
        throw new ProtocolError('out-of-order', 'upload:chunk came before upload:begin; begin the upload first.');
      const size = this.size(leaseId);
      if (offset + bytes.length <= size) return size;
      if (offset !== size) {
        throw new ProtocolError(
          'upload-offset',
          `The chunk starts at byte ${offset}, the upload stands at ${size}. Ask upload:begin where to go on.`,
        );
      }
      if (size + bytes.length > begin.bytes) {
        throw new ProtocolError(
          'upload-too-large',
          `The chunk ends at byte ${size + bytes.length} of an upload announced with ${begin.bytes}.`,
        );
      }
      await this.#append(leaseId, bytes);
      return size + bytes.length;
    });
  }

  async #append(leaseId: string, bytes: Uint8Array): Promise<void> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(this.#path(leaseId), 'a');
      await handle.appendFile(bytes);
    } catch (cause) {
      if (systemCode(cause) !== 'ENOSPC') throw cause;
      throw new ProtocolError(
        'storage-full',
        'The server’s disk is full; the upload stands where it was. Try again later.',
        {
          retryAfterMs: 60_000,
          cause,
        },
      );
    } finally {
      await handle?.close();
    }
  }

  /** The whole upload. Throws 'out-of-order' or 'upload-offset' when it is not all there. */
  whole(leaseId: string): Promise<{ begin: UploadBegin; bytes: Uint8Array }> {
    return this.#inOrder(leaseId, async () => {
      const begin = this.announced(leaseId);
      if (!begin)
        throw new ProtocolError('out-of-order', 'upload:commit came before upload:begin; begin the upload first.');
      const size = this.size(leaseId);
      if (size !== begin.bytes) {
        throw new ProtocolError(
          'upload-offset',
          `Only ${size} of ${begin.bytes} bytes have come; send the rest first.`,
        );
      }
      return { begin, bytes: await readFile(this.#path(leaseId)) };
    });
  }

  /** Flushes the whole file and hands it to `adopt`, which moves it away. */
  async keep(leaseId: string, adopt: (file: string) => void): Promise<void> {
    await this.#inOrder(leaseId, async () => {
      const path = this.#path(leaseId);
      const handle = await open(path, 'r+');
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
      withDisk(path, () => adopt(path));
      rmSync(this.#notePath(leaseId), { force: true });
    });
  }

  async discard(leaseId: string): Promise<void> {
    await this.#inOrder(leaseId, async () => {
      rmSync(this.#path(leaseId), { force: true });
      rmSync(this.#notePath(leaseId), { force: true });
    });
  }

  /** Removes what belongs to no lease that could still deliver; returns what that was. */
  sweep(isLive: (leaseId: string) => boolean): { name: string; bytes: number }[] {
    const removed: { name: string; bytes: number }[] = [];
    for (const name of readdirSync(this.#folder)) {
      const leaseId = name.replace(/\.(part|json)$/, '');
      if (this.#queues.has(leaseId) || isLive(leaseId)) continue;
      const path = join(this.#folder, name);
      removed.push({ name, bytes: statSync(path).size });
      rmSync(path, { force: true });
    }
    return removed;
  }

  #inOrder<T>(leaseId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(leaseId) ?? Promise.resolve();
    const result = before.then(work, work);
    // The queue only orders; failures reach the caller through `result`.
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#queues.set(leaseId, settled);
    void settled.then(() => {
      if (this.#queues.get(leaseId) === settled) this.#queues.delete(leaseId);
    });
    return result;
  }
}
