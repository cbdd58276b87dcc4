// Room on the disk: looked at now and then and before every upload, so that work is refused while there is still room for
// what has been acknowledged to be merged and committed.
import { statfs } from 'node:fs/promises';
import { ProtocolError } from '@weft/protocol';
import type { Logger } from 'pino';

const LOOK_EVERY_MS = 5_000;
/** Uploads that begin within this time share one look. */
const FRESH_MS = 500;
const RETRY_AFTER_MS = 60_000;

/** Bytes a process without privileges may still write at `path`. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
}

export class DiskSpace {
  readonly #folder: string;
  readonly #minFreeBytes: number;
  readonly #logger: Logger;
  readonly #now: () => number;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #free = Number.POSITIVE_INFINITY;
  #low = false;
  readonly #timer: NodeJS.Timeout;

  /** `now`: monotonic milliseconds. */
  constructor(folder: string, minFreeBytes: number, logger: Logger, now: () => number) {
    this.#folder = folder;
    this.#minFreeBytes = minFreeBytes;
    this.#logger = logger;
    this.#now = now;
    this.#timer = setInterval(() => {
      this.look().catch((error: unknown) => logger.error({ err: error }, 'the free space could not be read'));
    }, LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Whether less than the set amount was free at the last look. */
  get low(): boolean {
    return this.#low;
  }

  /** Free bytes at the last look; null before the first. */
  get free(): number | null {
    return Number.isFinite(this.#free) ? this.#free : null;
  }

  /** Looks, and tells the log of a change for better or worse. */
  async look(): Promise<void> {
    this.#free = await freeBytes(this.#folder);
    this.#lookedAt = this.#now();
    const low = this.#free < this.#minFreeBytes;
    if (low === this.#low) return;
    this.#low = low;
    const detail = { freeBytes: this.#free, minFreeBytes: this.#minFreeBytes };
    if (low) this.#logger.error(detail, 'the disk is nearly full: uploads are refused until there is room');
    else this.#logger.info(detail, 'the disk has room again: uploads are taken');
  }

  /** Throws ProtocolError 'storage-full' when `bytes` more would leave less than the set amount free. */
  async requireRoom(bytes: number): Promise<void> {
    if (this.#now() - this.#lookedAt > FRESH_MS) await this.look();
    if (this.#free - bytes >= this.#minFreeBytes) return;
    throw new ProtocolError(
      'storage-full',
      'The server’s disk is nearly full, so it takes no uploads. Try again later.',
      {
        retryAfterMs: RETRY_AFTER_MS,
      },
    );
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
