// The tree against a plain recomputation written another way, for every shape up to some size and random ones beyond; and what
// a changed leaf, place, size or path must not get through.
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inclusionPath, leafHash, rootFromPath, treeRoot } from './hash-tree.ts';

const sha256 = (...parts: (Buffer | string)[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};
const nodeOf = (left: string, right: string): string =>
  sha256(Buffer.of(1), Buffer.from(left, 'hex'), Buffer.from(right, 'hex'));

/** Level by level, a node without a neighbour moving up unchanged: the same tree as the recursive definition. */
function plainRoot(leaves: readonly string[]): string {
  if (leaves.length === 0) return sha256('');
  let level = [...leaves];
  while (level.length > 1) {
    const next: string[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const [left = '', right] = [level[i], level[i + 1]];
      next.push(right === undefined ? left : nodeOf(left, right));
    }
    level = next;
  }
  return level[0] ?? '';
}

const leavesOf = (size: number): Promise<string[]> =>
  Promise.all(Array.from({ length: size }, (_, i) => leafHash(`leaf ${i} of ${size}`)));

const flip = (hash: string): string => (hash.startsWith('0') ? '1' : '0') + hash.slice(1);

describe('the hash tree', () => {
  it('hashes leaves and nodes under their prefixes, and nothing as nothing', async () => {
    expect(await leafHash('weft')).toBe(sha256(Buffer.of(0), 'weft'));
    expect(await treeRoot([])).toBe(sha256(''));
    const [a = '', b = '', c = ''] = await leavesOf(3);
    expect(await treeRoot([a])).toBe(a);
    expect(await treeRoot([a, b, c])).toBe(nodeOf(nodeOf(a, b), c));
  });

  it('has the root of a plain recomputation, and a path from every leaf to it, at every size to 40', async () => {
    for (let size = 1; size <= 40; size++) {
      const leaves = await leavesOf(size);
      const root = plainRoot(leaves);
      expect(await treeRoot(leaves)).toBe(root);
      for (const [index, leaf] of leaves.entries()) {
        const path = await inclusionPath(leaves, index);
        expect(await rootFromPath(leaf, { index, size, path })).toBe(root);
      }
    }
  });

  it('lets no other leaf, place, size or path through', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 300 }), fc.nat(), fc.nat(), async (size, at, other) => {
        const leaves = await leavesOf(size);
        const index = at % size;
        const leaf = leaves[index] ?? '';
        const path = await inclusionPath(leaves, index);
        const root = plainRoot(leaves);
        expect(await rootFromPath(leaf, { index, size, path })).toBe(root);
        expect(await rootFromPath(flip(leaf), { index, size, path })).not.toBe(root);
        const elsewhere = other % size;
        if (elsewhere !== index) expect(await rootFromPath(leaf, { index: elsewhere, size, path })).not.toBe(root);
        expect(await rootFromPath(leaf, { index, size, path: [...path, flip(root)] })).not.toBe(root);
        expect(await rootFromPath(leaf, { index, size, path: path.slice(1) })).not.toBe(root);
        const bent = path.map((hash, i) => (i === other % path.length ? flip(hash) : hash));
        expect(await rootFromPath(leaf, { index, size, path: bent })).not.toBe(root);
        expect(await rootFromPath(leaf, { index: size, size, path })).toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  it('names a leaf that is not there', async () => {
    await expect(inclusionPath(await leavesOf(3), 3)).rejects.toThrow(RangeError);
  });
});
