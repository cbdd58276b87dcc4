// Files named by the SHA-256 of their content, two levels deep: never changed, written once, safe to cache for ever.
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sha256Hex } from '@weft/formats';
import type { BlobReference } from '@weft/protocol';
import { ServerError } from '../errors.ts';
import { syncFolder, writeDurably } from './files.ts';

export class BlobFolder {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  path(sha256: string): string {
    return join(this.#folder, sha256.slice(0, 2), sha256);
  }

  has(sha256: string): boolean {
    return existsSync(this.path(sha256));
  }

  /** Keeps `bytes`; durable when this returns. */
  async put(bytes: Uint8Array): Promise<BlobReference> {
    const sha256 = await sha256Hex(bytes);
    if (!this.has(sha256)) writeDurably(this.path(sha256), bytes);
    return { sha256, bytes: bytes.length };
  }

  /** Deletes a blob; durable when this returns. One that is not there is no error. */
  remove(sha256: string): void {
    const path = this.path(sha256);
    if (!existsSync(path)) return;
    rmSync(path, { force: true });
    syncFolder(dirname(path));
  }

  /** Throws ServerError 'data-dir-corrupt' when the blob is not there. */
  read(sha256: string): Uint8Array {
    if (!this.has(sha256)) {
      throw new ServerError(
        'data-dir-corrupt',
        `The data folder has lost ${this.path(sha256)}. Restore it from a backup.`,
      );
    }
    return readFileSync(this.path(sha256));
  }
}
