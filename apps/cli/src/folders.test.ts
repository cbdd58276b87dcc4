// Files read in parts, and what is said when they are not there or change.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Io } from './command.ts';
import { fileSource, readModelFolder, readRows } from './folders.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weft-folders-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const io: Io = { json: false, signal: new AbortController().signal, note() {}, status() {}, result() {} };

describe('a file read in parts', () => {
  it('gives the bytes asked for, and only those that are there', async () => {
    const path = join(folder, 'file');
    await writeFile(
      path,
      Uint8Array.from({ length: 100 }, (_, i) => i),
    );
    const source = await fileSource(path);
    expect(source.size).toBe(100);
    expect([...(await source.read(40, 3))]).toEqual([40, 41, 42]);
    expect([...(await source.read(98, 10))]).toEqual([98, 99]);
    expect(await source.read(100, 10)).toHaveLength(0);
    expect(await source.read(0, 0)).toHaveLength(0);
    const parts = await Promise.all(Array.from({ length: 100 }, (_, i) => source.read(i, 1)));
    expect(parts.map(([byte]) => byte)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it('is not read on when it has changed, or gone', async () => {
    const path = join(folder, 'file');
    await writeFile(path, 'first');
    const source = await fileSource(path);
    await writeFile(path, 'second');
    await expect(source.read(0, 5)).rejects.toMatchObject({ code: 'file-changed' });
    await rm(path);
    await expect(source.read(0, 5)).rejects.toMatchObject({ code: 'unreadable' });
    await expect(fileSource(path)).rejects.toMatchObject({ code: 'unreadable' });
  });
});

describe('a model folder', () => {
  it('that is not there, or holds no model, is named', async () => {
    await expect(readModelFolder(join(folder, 'none'), io)).rejects.toMatchObject({ code: 'no-such-folder' });
    await expect(readModelFolder(folder, io)).rejects.toMatchObject({ code: 'model-missing' });
  });
});

describe('rows', () => {
  it('come from JSON lines, tables and plain text', async () => {
    const write = async (name: string, text: string) => {
      await writeFile(join(folder, name), text);
      return join(folder, name);
    };
    const row = [{ kind: 'text', prompt: 'a', completion: 'b' }];
    expect(await readRows(await write('x.jsonl', '{"prompt": "a", "completion": "b"}\n'))).toEqual(row);
    const columns = { prompt: 'question', completion: 'answer' };
    expect(await readRows(await write('x.csv', 'question,answer\na,b\n'), { columns })).toEqual(row);
    expect(await readRows(await write('x.txt', 'plain'))).toEqual([{ kind: 'plain', text: 'plain' }]);
    await expect(readRows(join(folder, 'none.jsonl'))).rejects.toMatchObject({ code: 'no-such-file' });
  });
});
