// Uploads made durable together. A flush costs a disk milliseconds, whether for one file or for all that wait, so those that
// arrive while one group is being flushed make up the next. Never in the event loop, which serves everybody else meanwhile.
import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { diskError, syncFolderLater } from '../store/files.ts';
import { Turns } from './turns.ts';

/** An upload whose bytes are in a file, and what is to be known of it. */
export interface Durable {
  /** Flushes the file's bytes. */
  sync(): Promise<void>;
  readonly file: string;
  /** Where the file goes. */
  readonly blob: string;
  readonly sidecar: string;
  readonly content: string;
}

/** Half of Node's threads for the disk: chunks have to be written while others wait for their flush. */
const FLUSHES_AT_ONCE = 2;
const MOST_TOGETHER = 256;
/** Folders remembered: those of all blobs, and of some rounds. */
const MOST_FOLDERS = 1_024;

interface Waiting {
  readonly job: Durable;
  readonly temporary: string;
  resolve(): void;
  reject(error: unknown): void;
}

export class GroupCommit {
  readonly #turns = new Turns(FLUSHES_AT_ONCE);
  readonly #made = new Set<string>();
  #waiting: Waiting[] = [];
  #running = false;

  /**
   * Resolves when blob and sidecar are where they belong, whatever happens then; the sidecar is never there without its blob.
   * Rejects with 'storage-full' or a system error; then there is no sidecar, and the upload is in `file` or in `blob`.
   */
  commit(job: Durable): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, temporary: `${job.sidecar}.${randomBytes(4).toString('hex')}.tmp`, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#waiting.length > 0) await this.#flush(this.#waiting.splice(0, MOST_TOGETHER));
    this.#running = false;
  }

  async #flush(all: readonly Waiting[]): Promise<void> {
    let group = await this.#each(all, async ({ job, temporary }) => {
      await this.#makeFolder(dirname(job.blob));
      await this.#makeFolder(dirname(job.sidecar));
      await Promise.all([
        this.#turns.run(() => job.sync()),
        this.#turns.run(() => writeFlushed(temporary, job.content)),
      ]);
      await rename(job.file, job.blob);
    });
    group = await this.#syncFolders(group, ({ job }) => dirname(job.blob));
    group = await this.#each(group, ({ job, temporary }) => rename(temporary, job.sidecar));
    group = await this.#syncFolders(group, ({ job }) => dirname(job.sidecar));
    for (const { resolve } of group) resolve();
  }

  /** Nobody removes these folders while a server runs, so that each is made once. */
  async #makeFolder(path: string): Promise<void> {
    if (this.#made.has(path)) return;
    await makeFolder(path);
    if (this.#made.size >= MOST_FOLDERS) this.#made.clear();
    this.#made.add(path);
  }

  /** Those of the group for which `work` succeeded; the others have been told. */
  async #each(group: readonly Waiting[], work: (waiting: Waiting) => Promise<void>): Promise<Waiting[]> {
    const done = await Promise.all(
      group.map(async (waiting) => {
        try {
          await work(waiting);
          return waiting;
        } catch (cause) {
          // Perhaps somebody has removed a folder after all.
          this.#made.clear();
          await rm(waiting.temporary, { force: true }).catch(() => undefined);
          waiting.reject(diskError(waiting.job.blob, cause));
          return null;
        }
      }),
    );
    return done.filter((waiting) => waiting !== null);
  }

  #syncFolders(group: readonly Waiting[], folderOf: (waiting: Waiting) => string): Promise<Waiting[]> {
    const syncs = new Map<string, Promise<void>>();
    return this.#each(group, (waiting) => {
      const folder = folderOf(waiting);
      const sync = syncs.get(folder) ?? this.#turns.run(() => syncFolderLater(folder));
      syncs.set(folder, sync);
      return sync;
    });
  }
}

/** A folder that is on disk with all those above it that were made for it. */
async function makeFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true });
  if (first === undefined) return;
  for (let made = path; ; made = dirname(made)) {
    await syncFolderLater(dirname(made));
    if (made === first) return;
  }
}

async function writeFlushed(path: string, content: string): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    await handle.writeFile(content);
    await handle.datasync();
  } finally {
    await handle.close();
  }
}
