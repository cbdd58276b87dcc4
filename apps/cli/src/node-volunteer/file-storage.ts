// A session's storage as files below one folder.
import { mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Storage, StorageError } from '@weft/volunteer';

const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

function failure(path: string, what: string, cause: unknown): StorageError {
  const code = systemCode(cause);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new StorageError(
      'storage-full',
      `The disk is full at ${path}; what was written before is kept. Free some space or choose another --state-dir.`,
      { cause },
    );
  }
  return new StorageError('storage-failed', `${path} cannot be ${what}. Choose another folder with --state-dir.`, {
    cause,
  });
}

/** Keys are relative paths of plain names, such as `blobs/<sha256>`. */
export function fileStorage(folder: string): Storage {
  const pathOf = (key: string): string => {
    if (!/^[\w-]+(\/[\w-]+)*$/.test(key)) throw new RangeError(`"${key}" is no key of a storage.`);
    return join(folder, key);
  };
  return {
    async read(key) {
      const path = pathOf(key);
      try {
        return await readFile(path);
      } catch (cause) {
        if (systemCode(cause) === 'ENOENT') return null;
        throw failure(path, 'read', cause);
      }
    },
    async size(key) {
      const path = pathOf(key);
      try {
        return (await stat(path)).size;
      } catch (cause) {
        if (systemCode(cause) === 'ENOENT') return 0;
        throw failure(path, 'read', cause);
      }
    },
    async writeAt(key, offset, bytes) {
      const path = pathOf(key);
      try {
        await mkdir(dirname(path), { recursive: true });
        // 'a' would ignore the offset and 'w' would empty the file; this makes it where it is missing.
        await (await open(path, 'a')).close();
        const handle = await open(path, 'r+');
        try {
          let written = 0;
          while (written < bytes.length) {
            written += (await handle.write(bytes, written, bytes.length - written, offset + written)).bytesWritten;
          }
        } finally {
          await handle.close();
        }
      } catch (cause) {
        throw failure(path, 'written', cause);
      }
    },
    async remove(key) {
      const path = pathOf(key);
      try {
        await rm(path, { force: true });
      } catch (cause) {
        throw failure(path, 'removed', cause);
      }
    },
  };
}
