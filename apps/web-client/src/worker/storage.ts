// Files kept between visits: bytes in the origin's private file system, written through synchronous access handles, which
// only a worker has. idb-keyval holds the index: how much of each file is flushed. What a crash left beyond that does not
// count.
import { StorageError, type Storage as VolunteerStorage } from '@weft/volunteer';
import { clear, createStore, del, get, set, type UseStore } from 'idb-keyval';

interface Entry {
  readonly bytes: number;
}

/** Another tab may hold a file open for a moment; only one may write at a time. */
const LOCK_ATTEMPTS = 40;
const LOCK_PAUSE_MS = 50;

const isNamed = (error: unknown, ...names: string[]): boolean =>
  error instanceof DOMException && names.includes(error.name);

function asStorageError(error: unknown, what: string): StorageError {
  if (error instanceof StorageError) return error;
  if (isNamed(error, 'QuotaExceededError')) {
    return new StorageError(
      'storage-full',
      `${what}: this browser’s storage is full. What is there is kept; free some disk space or remove data of other sites, then try again.`,
      { cause: error },
    );
  }
  return new StorageError(
    'storage-failed',
    `${what} failed: ${error instanceof Error ? error.message : String(error)}`,
    {
      cause: error,
    },
  );
}

class PrivateFiles implements TabStorage {
  readonly #root: FileSystemDirectoryHandle;
  readonly #index: UseStore;

  constructor(root: FileSystemDirectoryHandle, index: UseStore) {
    this.#root = root;
    this.#index = index;
  }

  async #handle(key: string, create: boolean): Promise<FileSystemFileHandle | null> {
    const parts = key.split('/');
    const name = parts.pop() ?? key;
    try {
      let folder = this.#root;
      for (const part of parts) folder = await folder.getDirectoryHandle(part, { create });
      return await folder.getFileHandle(name, { create });
    } catch (error) {
      if (!create && isNamed(error, 'NotFoundError')) return null;
      throw error;
    }
  }

  async size(key: string): Promise<number> {
    return (await get<Entry>(key, this.#index))?.bytes ?? 0;
  }

  async read(key: string): Promise<Uint8Array | null> {
    try {
      const known = await this.size(key);
      if (known === 0) return null;
      const handle = await this.#handle(key, false);
      if (!handle) return null;
      const file = await handle.getFile();
      return new Uint8Array(await file.slice(0, known).arrayBuffer());
    } catch (error) {
      throw asStorageError(error, 'Reading a kept file');
    }
  }

  async writeAt(key: string, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      const handle = await this.#handle(key, true);
      if (!handle) throw new StorageError('storage-failed', `The file ${key} could not be made.`);
      const access = await openAccess(handle);
      try {
        let written = 0;
        while (written < bytes.length) {
          const count = access.write(bytes.subarray(written), { at: offset + written });
          if (count === 0) throw new DOMException('Nothing more could be written.', 'QuotaExceededError');
          written += count;
        }
        access.flush();
      } finally {
        access.close();
      }
      const known = await this.size(key);
      await set(key, { bytes: Math.max(known, offset + bytes.length) } satisfies Entry, this.#index);
    } catch (error) {
      throw asStorageError(error, 'Keeping a downloaded file');
    }
  }

  async remove(key: string): Promise<void> {
    try {
      await del(key, this.#index);
      const parts = key.split('/');
      const name = parts.pop() ?? key;
      let folder = this.#root;
      for (const part of parts) folder = await folder.getDirectoryHandle(part);
      await folder.removeEntry(name);
    } catch (error) {
      if (!isNamed(error, 'NotFoundError')) throw asStorageError(error, 'Removing a kept file');
    }
  }

  async clear(): Promise<void> {
    try {
      await clear(this.#index);
      for await (const name of this.#root.keys()) await this.#root.removeEntry(name, { recursive: true });
    } catch (error) {
      throw asStorageError(error, 'Removing the kept files');
    }
  }
}

/** The tab's files, which can all be deleted at once. */
export interface TabStorage extends VolunteerStorage {
  clear(): Promise<void>;
}

async function openAccess(handle: FileSystemFileHandle): Promise<FileSystemSyncAccessHandle> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await handle.createSyncAccessHandle();
    } catch (error) {
      if (!isNamed(error, 'NoModificationAllowedError') || attempt >= LOCK_ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, LOCK_PAUSE_MS));
    }
  }
}

/** Keeps files for this visit only. */
class MemoryFiles implements TabStorage {
  readonly #files = new Map<string, Uint8Array>();

  async read(key: string): Promise<Uint8Array | null> {
    return this.#files.get(key)?.slice() ?? null;
  }

  async size(key: string): Promise<number> {
    return this.#files.get(key)?.length ?? 0;
  }

  async writeAt(key: string, offset: number, bytes: Uint8Array): Promise<void> {
    const before = this.#files.get(key) ?? new Uint8Array();
    const after = new Uint8Array(Math.max(before.length, offset + bytes.length));
    after.set(before);
    after.set(bytes, offset);
    this.#files.set(key, after);
  }

  async remove(key: string): Promise<void> {
    this.#files.delete(key);
  }

  async clear(): Promise<void> {
    this.#files.clear();
  }
}

/** Opens the tab's storage. Where the browser gives none (some private windows), files last for this visit, and `note` says so. */
export async function openStorage(): Promise<{ storage: TabStorage; note: string | null }> {
  try {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle('weft', { create: true });
    const index = createStore('weft-files', 'index');
    // A first look proves that the database opens too.
    await get('blobs', index);
    return { storage: new PrivateFiles(folder, index), note: null };
  } catch (error) {
    const why = error instanceof Error ? error.name : String(error);
    return {
      storage: new MemoryFiles(),
      note: `This browser window keeps no files (${why}), so the model is downloaded again at the next visit.`,
    };
  }
}
