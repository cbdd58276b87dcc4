// Edges of downloads that a whole session does not reach.
import { sha256Hex } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { RunFiles } from './files.ts';
import { MemoryStorage } from './testing/bench.ts';
import { FakeClock } from './testing/fake-clock.ts';

const PIECE = 16;

async function make(bytes: Uint8Array) {
  const storage = new MemoryStorage();
  let ranges = 0;
  const files = new RunFiles({
    downloads: {
      json: () => Promise.reject(new Error('not asked')),
      range: async (_sha256, begin, end) => {
        ranges += 1;
        return bytes.slice(begin, end);
      },
    },
    storage,
    clock: new FakeClock(),
    random: () => 0,
    onRetry: () => undefined,
  });
  const pieces: string[] = [];
  for (let at = 0; at < bytes.length; at += PIECE) pieces.push(await sha256Hex(bytes.subarray(at, at + PIECE)));
  const file = {
    kind: 'model' as const,
    task: null,
    name: 'f',
    bytes: bytes.length,
    sha256: await sha256Hex(bytes),
    pieces,
  };
  const fetching = {
    signal: new AbortController().signal,
    whenRunning: () => Promise.resolve(),
    onBytes: () => undefined,
  };
  return { storage, files, file, fetching, ranges: () => ranges };
}

const counting = (length: number) => Uint8Array.from({ length }, (_, i) => i);

describe('RunFiles.file', () => {
  it.each([0, 1, PIECE, PIECE + 1, 5 * PIECE])('gets %i bytes whole', async (length) => {
    const { files, file, fetching, ranges } = await make(counting(length));
    expect([...(await files.file(file, PIECE, fetching))]).toEqual([...counting(length)]);
    expect(ranges()).toBe(Math.ceil(length / PIECE));
  });

  it('replaces a stored file that is longer than it should be', async () => {
    const { files, file, fetching, storage } = await make(counting(20));
    await storage.writeAt(`blobs/${file.sha256}`, 0, counting(30));
    await files.file(file, PIECE, fetching);
    expect(storage.files.get(`blobs/${file.sha256}`)).toHaveLength(20);
  });

  it('refuses a file without a hash for every piece', async () => {
    const { files, file, fetching } = await make(counting(20));
    await expect(files.file({ ...file, pieces: [] }, PIECE, fetching)).rejects.toMatchObject({ code: 'piece-hash' });
  });
});
