// The session's storage as files.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fileStorage } from './file-storage.ts';
import { parseServerAddress } from './server-address.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-storage-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('fileStorage', () => {
  it('keeps bytes at their offset, in any order', async () => {
    const storage = fileStorage(folder);
    expect(await storage.read('blobs/a')).toBeNull();
    expect(await storage.size('blobs/a')).toBe(0);
    await storage.writeAt('blobs/a', 2, Uint8Array.of(3, 4));
    await storage.writeAt('blobs/a', 0, Uint8Array.of(1, 2));
    expect([...((await storage.read('blobs/a')) ?? [])]).toEqual([1, 2, 3, 4]);
    await storage.writeAt('blobs/a', 1, Uint8Array.of(9));
    expect([...((await fileStorage(folder).read('blobs/a')) ?? [])]).toEqual([1, 9, 3, 4]);
    await storage.remove('blobs/a');
    await storage.remove('blobs/a');
    expect(await storage.size('blobs/a')).toBe(0);
  });

  it.each(['../a', '/a', 'a/../b', '', 'a//b', 'a\\b'])('%j is no key', async (key) => {
    await expect(fileStorage(folder).read(key)).rejects.toThrow(RangeError);
  });

  it('names the path where it cannot write', async () => {
    writeFileSync(join(folder, 'blobs'), 'a file where a folder should be');
    await expect(fileStorage(folder).writeAt('blobs/a', 0, Uint8Array.of(1))).rejects.toMatchObject({
      code: 'storage-failed',
      message: expect.stringContaining(join(folder, 'blobs')),
    });
  });
});

describe('parseServerAddress', () => {
  it.each([
    ['localhost:8080', 'http://localhost:8080', null],
    ['http://192.168.1.4:8080/', 'http://192.168.1.4:8080', null],
    ['https://weft.example/?run=abc', 'https://weft.example', 'abc'],
    ['weft.example', 'http://weft.example', null],
  ])('%s', (text, origin, runId) => {
    expect(parseServerAddress(text)).toEqual({ origin, runId, invite: null });
  });

  it('reads the invite of a link', () => {
    const link = 'https://weft.example/?run=abc#invite=eyJ4Ijox.c2ln';
    expect(parseServerAddress(link)).toEqual({ origin: 'https://weft.example', runId: 'abc', invite: 'eyJ4Ijox.c2ln' });
  });
});
