// Uploads on their way: one file and one note a lease, so that a broken line or a restarted server goes on where the last
// acknowledged byte was. What stands in a file, and its SHA-256 so far, is kept in memory; a chunk costs one write. Their
// number and bytes are bounded: they are the one thing on disk that grows before anything has been checked.
import { createHash, type Hash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { idSchema, ProtocolError, type UploadBegin, uploadBeginSchema } from '@weft/protocol';
import type { z } from 'zod';
import { ServerError } from '../errors.ts';
import { diskError, readJson } from '../store/files.ts';
import type { FactorFile } from './factors.ts';
import { type Durable, GroupCommit } from './group-commit.ts';

export interface UploadLimits {
  /** Announced bytes of all unfinished uploads together; more are refused with 'overloaded'. */
  readonly pendingBytes: number;
  /** Bytes of chunks that wait to be written; more are refused with 'overloaded'. */
  readonly queuedBytes: number;
  /** Unfinished uploads of one client; a further one takes the place of the oldest. */
  readonly perClient: number;
}

export const DEFAULT_UPLOAD_LIMITS: UploadLimits = { pendingBytes: 2 ** 35, queuedBytes: 2 ** 28, perClient: 4 };

/** Files held open; others are opened again when they go on. */
const MOST_HANDLES = 128;

const REHASH_BYTES = 1 << 20;

const OVERLOADED = { retryAfterMs: 2_000 };

/** Notes of earlier versions do not name the client. */
const noteSchema = uploadBeginSchema.extend({ clientId: idSchema.nullable().default(null) });
type Note = z.output<typeof noteSchema>;

interface Upload {
  note: Note;
  size: number;
  /** Over the first `size` bytes; null until what an earlier process left has been read again. */
  hash: Hash | null;
  handle: FileHandle | null;
  /** The last work of this upload: chunks of one upload never overtake each other. */
  last: Promise<unknown>;
  /** Works that have not ended. */
  open: number;
}

export interface RemovedFile {
  readonly name: string;
  readonly bytes: number;
}

/** A whole upload, while nothing else can be done to it. */
export interface WholeUpload extends FactorFile {
  readonly begin: UploadBegin;
  readonly sha256: string;
  /** Moves it to `blob` with a sidecar beside; durable when this resolves. Rejects with 'storage-full' or a system error. */
  keep(place: Pick<Durable, 'blob' | 'sidecar' | 'content'>): Promise<void>;
  remove(): Promise<void>;
}

export class PartialUploads {
  readonly #folder: string;
  readonly #limits: UploadLimits;
  /** By lease, oldest first. */
  readonly #uploads = new Map<string, Upload>();
  /** Those with a handle, least recently used first. */
  readonly #opened = new Set<Upload>();
  readonly #group = new GroupCommit();
  readonly #unreadable: RemovedFile[] = [];
  #pendingBytes = 0;
  #queuedBytes = 0;

  /** Finds what an earlier process left. Nothing of it was acknowledged for good, so what cannot be read is removed. */
  constructor(folder: string, limits: UploadLimits = DEFAULT_UPLOAD_LIMITS) {
    this.#folder = folder;
    this.#limits = limits;
    mkdirSync(folder, { recursive: true });
    const names = readdirSync(folder);
    for (const name of names) {
      if (name.endsWith('.json')) this.#adopt(name.slice(0, -'.json'.length));
    }
    for (const name of names) {
      if (!this.#uploads.has(name.replace(/\.(part|json)$/, '')))
        this.#unreadable.push(...removeFile(join(folder, name)));
    }
  }

  #adopt(leaseId: string): void {
    let note: Note | null;
    try {
      note = readJson(this.#notePath(leaseId), noteSchema);
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      return;
    }
    const size = statSync(this.#path(leaseId), { throwIfNoEntry: false })?.size ?? 0;
    if (note && size <= note.bytes) this.#add(leaseId, note, size, null);
  }

  #add(leaseId: string, note: Note, size: number, hash: Hash | null): Upload {
    const upload: Upload = { note, size, hash, handle: null, last: Promise.resolve(), open: 0 };
    this.#uploads.set(leaseId, upload);
    this.#pendingBytes += note.bytes;
    return upload;
  }

  #path(leaseId: string): string {
    return join(this.#folder, `${leaseId}.part`);
  }

  #notePath(leaseId: string): string {
    return join(this.#folder, `${leaseId}.json`);
  }

  /** Announced bytes of unfinished uploads, and bytes that wait to be written. */
  get load(): { readonly uploads: number; readonly pendingBytes: number; readonly queuedBytes: number } {
    return { uploads: this.#uploads.size, pendingBytes: this.#pendingBytes, queuedBytes: this.#queuedBytes };
  }

  /** Opens an upload or finds the same one again; returns the offset to go on from. Throws 'overloaded', 'storage-full'. */
  async begin(clientId: string, begin: UploadBegin): Promise<number> {
    const { leaseId } = begin;
    const note: Note = { ...begin, clientId };
    const before = this.#uploads.get(leaseId);
    if (before) {
      const found = await this.#inOrder(before, async () => {
        if (this.#uploads.get(leaseId) !== before) return null;
        const { sha256, bytes } = before.note;
        if (sha256 !== begin.sha256 || bytes !== begin.bytes) {
          await this.#remove(leaseId, before);
          return null;
        }
        if (JSON.stringify(before.note) !== JSON.stringify(note)) await this.#writeNote(leaseId, note);
        before.note = note;
        return before.size;
      });
      if (found !== null) return found;
    }
    // Somebody who asked at the same time may have begun it meanwhile.
    if (this.#uploads.has(leaseId)) return this.begin(clientId, begin);
    await this.#makeRoom(clientId);
    if (this.#uploads.has(leaseId)) return this.begin(clientId, begin);
    if (this.#pendingBytes + begin.bytes > this.#limits.pendingBytes) {
      throw new ProtocolError(
        'overloaded',
        'The server takes no further upload until some of those on their way have ended. Try again later.',
        OVERLOADED,
      );
    }
    const upload = this.#add(leaseId, note, 0, createHash('sha256'));
    return this.#inOrder(upload, async () => {
      try {
        await this.#writeNote(leaseId, note);
      } catch (error) {
        await this.#remove(leaseId, upload);
        throw error;
      }
      return 0;
    });
  }

  /** Not flushed and in place: a note that a crash cut short costs only what was not acknowledged for good. */
  async #writeNote(leaseId: string, note: Note): Promise<void> {
    try {
      await writeFile(this.#notePath(leaseId), JSON.stringify(note));
    } catch (cause) {
      throw diskError('the announcement', cause);
    }
  }

  /** A client has one live lease a run: what it began before the last few can hardly be delivered any more. */
  async #makeRoom(clientId: string): Promise<void> {
    const own: [string, Upload][] = [];
    for (const entry of this.#uploads) if (entry[1].note.clientId === clientId) own.push(entry);
    const [oldest] = own;
    if (!oldest || own.length < this.#limits.perClient) return;
    await this.#inOrder(oldest[1], () => this.#remove(...oldest));
  }

  /** Appends a chunk that starts where the upload stands; one that lies wholly before that was only repeated. */
  async chunk(leaseId: string, offset: number, bytes: Uint8Array): Promise<number> {
    const upload = this.#begun(leaseId, 'upload:chunk');
    if (this.#queuedBytes + bytes.length > this.#limits.queuedBytes) {
      throw new ProtocolError(
        'overloaded',
        'More is coming in than the disk can take; send the chunk again later.',
        OVERLOADED,
      );
    }
    this.#queuedBytes += bytes.length;
    try {
      return await this.#inOrder(upload, async () => {
        if (this.#begun(leaseId, 'upload:chunk') !== upload) return this.#standing(leaseId, offset);
        const { size, note } = upload;
        if (offset + bytes.length <= size) return size;
        if (offset !== size) throw wrongOffset(offset, size);
        if (size + bytes.length > note.bytes) {
          throw new ProtocolError(
            'upload-too-large',
            `The chunk ends at byte ${size + bytes.length} of an upload announced with ${note.bytes}.`,
          );
        }
        await this.#append(leaseId, upload, bytes);
        return upload.size;
      });
    } finally {
      this.#queuedBytes -= bytes.length;
    }
  }

  /** The upload was begun anew while the chunk waited, so that the chunk continues nothing. */
  #standing(leaseId: string, offset: number): never {
    throw wrongOffset(offset, this.#begun(leaseId, 'upload:chunk').size);
  }

  #begun(leaseId: string, message: string): Upload {
    const upload = this.#uploads.get(leaseId);
    if (upload) return upload;
    throw new ProtocolError('out-of-order', `${message} came before upload:begin; begin the upload first.`);
  }

  async #append(leaseId: string, upload: Upload, bytes: Uint8Array): Promise<void> {
    const hash = upload.hash ?? (await this.#rehash(leaseId, upload));
    try {
      const handle = await this.#handleOf(leaseId, upload);
      for (let written = 0; written < bytes.length; ) {
        const at = upload.size + written;
        written += (await handle.write(bytes, written, bytes.length - written, at)).bytesWritten;
      }
    } catch (cause) {
      throw diskError('the upload, which stands where it was,', cause);
    }
    hash.update(bytes);
    upload.size += bytes.length;
  }

  async #rehash(leaseId: string, upload: Upload): Promise<Hash> {
    const hash = createHash('sha256');
    const piece = new Uint8Array(Math.min(REHASH_BYTES, upload.size));
    for (let at = 0; at < upload.size; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, upload.size - at));
      await this.#read(leaseId, upload, part, at);
      hash.update(part);
    }
    upload.hash = hash;
    return hash;
  }

  async #read(leaseId: string, upload: Upload, into: Uint8Array, position: number): Promise<void> {
    const handle = await this.#handleOf(leaseId, upload);
    for (let done = 0; done < into.length; ) {
      const { bytesRead } = await handle.read(into, done, into.length - done, position + done);
      if (bytesRead === 0) throw new RangeError(`${this.#path(leaseId)} ends before byte ${position + into.length}.`);
      done += bytesRead;
    }
  }

  async #handleOf(leaseId: string, upload: Upload): Promise<FileHandle> {
    this.#opened.delete(upload);
    this.#opened.add(upload);
    if (upload.handle) return upload.handle;
    for (const other of this.#opened) {
      if (this.#opened.size <= MOST_HANDLES) break;
      if (other.open === 0) await this.#closeHandle(other);
    }
    // 'a' would move every write to the end; 'r+' does not make the file.
    upload.handle = await open(this.#path(leaseId), upload.size === 0 ? 'w+' : 'r+');
    return upload.handle;
  }

  async #closeHandle(upload: Upload): Promise<void> {
    const { handle } = upload;
    upload.handle = null;
    this.#opened.delete(upload);
    await handle?.close();
  }

  /**
   * Does `work` with the whole upload, while its chunks and begins wait. Rejects with 'out-of-order' or 'upload-offset' when it
   * is not all there, and as `work`.
   */
  async whole<T>(leaseId: string, work: (upload: WholeUpload) => Promise<T>): Promise<T> {
    const upload = this.#begun(leaseId, 'upload:commit');
    return this.#inOrder(upload, async () => {
      if (this.#begun(leaseId, 'upload:commit') !== upload) return this.whole(leaseId, work);
      const { note, size } = upload;
      if (size !== note.bytes) {
        throw new ProtocolError('upload-offset', `Only ${size} of ${note.bytes} bytes have come; send the rest first.`);
      }
      const hash = upload.hash ?? (await this.#rehash(leaseId, upload));
      const { clientId: _, ...begin } = note;
      return work({
        begin,
        bytes: size,
        sha256: hash.copy().digest('hex'),
        read: (into, position) => this.#read(leaseId, upload, into, position),
        keep: (place) => this.#keep(leaseId, upload, place),
        remove: () => this.#remove(leaseId, upload),
      });
    });
  }

  async #keep(leaseId: string, upload: Upload, place: Pick<Durable, 'blob' | 'sidecar' | 'content'>): Promise<void> {
    const file = this.#path(leaseId);
    const sync = async () => (await this.#handleOf(leaseId, upload)).datasync();
    try {
      await this.#group.commit({ ...place, file, sync });
    } catch (error) {
      // It may be retried from where it lies, unless only half of it succeeded.
      if (!existsSync(file)) await this.#remove(leaseId, upload);
      throw error;
    }
    // The file is elsewhere now.
    await this.#remove(leaseId, upload, [this.#notePath(leaseId)]);
  }

  async #remove(
    leaseId: string,
    upload: Upload,
    files = [this.#path(leaseId), this.#notePath(leaseId)],
  ): Promise<void> {
    if (this.#uploads.get(leaseId) !== upload) return;
    this.#uploads.delete(leaseId);
    this.#pendingBytes -= upload.note.bytes;
    await Promise.all([this.#closeHandle(upload), ...files.map((path) => rm(path, { force: true }))]);
  }

  /** Removes what of this lease is on its way, once nothing is done with it any more. */
  async discard(leaseId: string): Promise<void> {
    const upload = this.#uploads.get(leaseId);
    if (upload) await this.#inOrder(upload, () => this.#remove(leaseId, upload));
  }

  /** Removes what belongs to no lease that could still deliver; returns what that was, and what nobody could read at the start. */
  sweep(isLive: (leaseId: string) => boolean): RemovedFile[] {
    const removed = this.#unreadable.splice(0);
    for (const [leaseId, upload] of [...this.#uploads]) {
      if (upload.open > 0 || isLive(leaseId)) continue;
      this.#uploads.delete(leaseId);
      this.#pendingBytes -= upload.note.bytes;
      // Of a file that is deleted nothing can be lost any more.
      this.#closeHandle(upload).catch(() => undefined);
      for (const path of [this.#path(leaseId), this.#notePath(leaseId)]) removed.push(...removeFile(path));
    }
    return removed;
  }

  /** Ends what is under way and closes all files; they go on after the next start. */
  async close(): Promise<void> {
    await Promise.all(
      Array.from(this.#uploads.values(), (upload) => this.#inOrder(upload, () => this.#closeHandle(upload))),
    );
  }

  #inOrder<T>(upload: Upload, work: () => Promise<T>): Promise<T> {
    upload.open += 1;
    const result = upload.last.then(work).finally(() => {
      upload.open -= 1;
    });
    // The queue only orders; failures reach the caller through `result`.
    upload.last = result.catch(() => undefined);
    return result;
  }
}

function removeFile(path: string): RemovedFile[] {
  const found = statSync(path, { throwIfNoEntry: false });
  rmSync(path, { force: true });
  return found ? [{ name: basename(path), bytes: found.size }] : [];
}

const wrongOffset = (offset: number, size: number): ProtocolError =>
  new ProtocolError(
    'upload-offset',
    `The chunk starts at byte ${offset}, the upload stands at ${size}. Ask upload:begin where to go on.`,
  );
