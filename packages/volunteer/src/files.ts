// Gets the files of a run: in pieces, each checked by its SHA-256 before it is kept, going on where an earlier visit
// stopped. Nothing that fails its check is ever stored or handed on.
import { sha256Hex, sha256HexOfText } from '@weft/formats';
import {
  type BlobReference,
  canonicalJson,
  type Manifest,
  type ManifestFile,
  manifestSchema,
  ProtocolError,
  parseMessage,
  ROUTES,
  type RunView,
} from '@weft/protocol';
import { abortable, backoffMs, sleep } from './clock.ts';
import { SessionError } from './errors.ts';
import { isPassing } from './line.ts';
import type { Clock, Downloads, ModelFiles, Storage } from './ports.ts';

export interface FilesOptions {
  readonly downloads: Downloads;
  readonly storage: Storage;
  readonly clock: Clock;
  readonly random: () => number;
  /** Told when a download failed and is tried again, and (null) when it goes on. */
  readonly onRetry: (error: Error | null) => void;
}

export interface Fetching {
  readonly signal: AbortSignal;
  /** Resolves at once while running, later while paused. */
  whenRunning(): Promise<void>;
  /** Bytes there so far, of this file. */
  onBytes(bytes: number): void;
}

/** The files of a run as a session asks for them: {@link RunFiles}, or what the load tool's sessions share. */
export type VolunteerFiles = Pick<RunFiles, 'manifest' | 'model' | 'rows' | 'blob'>;

/** Times a piece is fetched anew after it came with other bytes than announced. */
const MOST_BAD_PIECES = 2;

export class RunFiles {
  readonly #options: FilesOptions;

  constructor(options: FilesOptions) {
    this.#options = options;
  }

  /** The run's list of files, checked against the run's hashes. */
  async manifest(run: RunView, signal: AbortSignal): Promise<Manifest> {
    const raw = await this.#retrying(() => this.#options.downloads.json(ROUTES.manifest(run.runId)), signal);
    const manifestHash = await sha256HexOfText(canonicalJson(raw));
    if (manifestHash !== run.manifestHash || run.identity.manifestHash !== run.manifestHash) {
      throw new SessionError(
        'manifest-hash',
        `The server's list of files does not have the hash the run announces (${run.manifestHash.slice(0, 12)}…). Nothing was downloaded; tell the operator.`,
      );
    }
    if ((await sha256HexOfText(canonicalJson(run.identity))) !== run.runHash) {
      throw new SessionError(
        'run-hash',
        `The run's conditions do not have the hash it announces (${run.runHash.slice(0, 12)}…). Nothing was downloaded; tell the operator.`,
      );
    }
    return parseMessage(manifestSchema, raw, 'manifest');
  }

  /** Every model file, from storage where it is kept, else from the server. `onBytes` counts over all of them. */
  async model(manifest: Manifest, fetching: Fetching): Promise<ModelFiles> {
    const files = manifest.files.filter((file) => file.kind === 'model');
    if (files.length === 0) {
      throw new SessionError('missing-file', 'The run has no model files. Tell the operator.');
    }
    const model = new Map<string, Uint8Array>();
    let before = 0;
    for (const file of files) {
      const base = before;
      const onBytes = (bytes: number) => fetching.onBytes(base + bytes);
      model.set(file.name, await this.file(file, manifest.pieceBytes, { ...fetching, onBytes }));
      before += file.bytes;
    }
    return model;
  }

  /** The JSONL text of a served task's split, such as 'train'. */
  async rows(manifest: Manifest, task: string, split: string, fetching: Fetching): Promise<string> {
    const file = manifest.files.find(
      (entry) => entry.kind === 'task' && entry.task === task && entry.name === `${split}.jsonl`,
    );
    if (!file) {
      throw new SessionError('missing-file', `The run lists no ${split}.jsonl of task "${task}". Tell the operator.`);
    }
    return new TextDecoder().decode(await this.file(file, manifest.pieceBytes, fetching));
  }

  /** One file of the manifest. Rejects with SessionError 'piece-hash', StorageError, ProtocolError. */
  async file(file: ManifestFile, pieceBytes: number, fetching: Fetching): Promise<Uint8Array> {
    const { storage } = this.#options;
    const key = `blobs/${file.sha256}`;
    const pieces = Math.ceil(file.bytes / pieceBytes);
    if (file.pieces.length !== pieces) {
      throw new SessionError(
        'piece-hash',
        `${file.name} has ${file.bytes} bytes but ${file.pieces.length} piece hashes. Tell the operator.`,
      );
    }
    const kept = await storage.read(key);
    const bytes = kept?.length === file.bytes ? kept : new Uint8Array(file.bytes);
    if (kept && kept.length < file.bytes) bytes.set(kept);
    let there = 0;
    for (let piece = 0; piece < pieces; piece++) {
      const begin = piece * pieceBytes;
      const end = Math.min(begin + pieceBytes, file.bytes);
      const stored = kept !== null && kept.length >= end && kept.length <= file.bytes;
      if (!stored || (await sha256Hex(bytes.subarray(begin, end))) !== file.pieces[piece]) {
        await fetching.whenRunning();
        const fetched = await this.#piece(file, piece, begin, end, fetching.signal);
        await storage.writeAt(key, begin, fetched);
        bytes.set(fetched, begin);
      }
      there += end - begin;
      fetching.onBytes(there);
    }
    // A longer file under this name can only be damaged; the next visit would trip over it.
    if (kept && kept.length > file.bytes) await this.#rewrite(key, bytes);
    return bytes;
  }

  async #rewrite(key: string, bytes: Uint8Array): Promise<void> {
    await this.#options.storage.remove(key);
    await this.#options.storage.writeAt(key, 0, bytes);
  }

  async #piece(
    file: ManifestFile,
    piece: number,
    begin: number,
    end: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    for (let bad = 0; bad < MOST_BAD_PIECES; bad++) {
      const bytes = await this.#range(file.sha256, begin, end, signal);
      if ((await sha256Hex(bytes)) === file.pieces[piece]) return bytes;
    }
    throw new SessionError(
      'piece-hash',
      `Piece ${piece + 1} of ${file.pieces.length} of ${file.name} came with other bytes than the run announces, ${MOST_BAD_PIECES} times. The pieces before it are kept; try again, and tell the operator if it goes on.`,
    );
  }

  /** A blob without piece hashes, checked as a whole and not stored: start weights, an adapter to evaluate. */
  async blob(reference: BlobReference, pieceBytes: number, fetching: Fetching): Promise<Uint8Array> {
    const { sha256, bytes: size } = reference;
    for (let bad = 0; bad < MOST_BAD_PIECES; bad++) {
      const bytes = new Uint8Array(size);
      for (let begin = 0; begin < size; begin += pieceBytes) {
        await fetching.whenRunning();
        const end = Math.min(begin + pieceBytes, size);
        bytes.set(await this.#range(sha256, begin, end, fetching.signal), begin);
        fetching.onBytes(end);
      }
      if ((await sha256Hex(bytes)) === sha256) return bytes;
    }
    throw new SessionError(
      'start-hash',
      `The adapter weights ${sha256.slice(0, 12)}… came with other bytes than announced, ${MOST_BAD_PIECES} times. Nothing was trained on them; try again, and tell the operator if it goes on.`,
    );
  }

  #range(sha256: string, begin: number, end: number, signal: AbortSignal): Promise<Uint8Array> {
    return this.#retrying(() => this.#options.downloads.range(sha256, begin, end, signal), signal);
  }

  /** Tries until it works, the signal aborts, or the server says something that time will not change. */
  async #retrying<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const { clock, random, onRetry } = this.#options;
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      try {
        const result = await abortable(work(), signal);
        if (attempt > 0) onRetry(null);
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (!isPassing(error)) throw error;
        onRetry(error);
        const asked = error instanceof ProtocolError ? (error.retryAfterMs ?? 0) : 0;
        await sleep(clock, Math.max(asked, backoffMs(Math.min(attempt, 5), random)), signal);
      }
    }
  }
}
