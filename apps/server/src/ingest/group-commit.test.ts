import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Durable, GroupCommit } from './group-commit.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'weft-group-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function upload(name: string, sync?: () => Promise<void>): Durable {
  const file = join(root, `${name}.part`);
  writeFileSync(file, `bytes of ${name}`);
  return {
    file,
    blob: join(root, 'uploads', name.slice(0, 1), name),
    sidecar: join(root, 'sidecars', '1', `${name}.json`),
    content: `{"name":"${name}"}`,
    sync:
      sync ??
      (async () => {
        const handle = await open(file, 'r+');
        await handle.sync();
        await handle.close();
      }),
  };
}

const inSidecars = () => readdirSync(join(root, 'sidecars', '1')).sort();

describe('GroupCommit', () => {
  it('puts every upload of a group where it belongs, with its sidecar and nothing besides', async () => {
    const group = new GroupCommit();
    const names = Array.from({ length: 300 }, (_, i) => `${i % 10}-${i}`);
    await Promise.all(names.map((name) => group.commit(upload(name))));
    for (const name of names) {
      const { blob, sidecar, content } = upload(name);
      expect(readFileSync(blob, 'utf8')).toBe(`bytes of ${name}`);
      expect(readFileSync(sidecar, 'utf8')).toBe(content);
    }
    expect(inSidecars()).toEqual(names.map((name) => `${name}.json`).sort());
  });

  it('tells the one that fails, whose sidecar is never there, and commits the others', async () => {
    const group = new GroupCommit();
    const broken = upload('broken', () => Promise.reject(new Error('the disk is gone')));
    const results = await Promise.allSettled([upload('a'), broken, upload('b')].map((job) => group.commit(job)));
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(inSidecars()).toEqual(['a.json', 'b.json']);
  });

  it('names a full disk, so that the client can be told when to come back', async () => {
    const full = upload('full', () => Promise.reject(Object.assign(new Error('no room'), { code: 'ENOSPC' })));
    await expect(new GroupCommit().commit(full)).rejects.toMatchObject({ code: 'storage-full' });
  });

  it('makes folders again that somebody has removed', async () => {
    const group = new GroupCommit();
    await group.commit(upload('a1'));
    rmSync(join(root, 'uploads'), { recursive: true });
    await expect(group.commit(upload('a2'))).rejects.toMatchObject({ code: 'ENOENT' });
    await group.commit(upload('a3'));
    expect(inSidecars()).toEqual(['a1.json', 'a3.json']);
  });
});
