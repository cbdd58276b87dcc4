// Where planned tensors lie: those that live always side by side, the others by their lives. Greedy by size, as in
// Pisarchyk and Lee (2020, arXiv 2001.03288, §5): the largest first, each at the lowest place free during its life.
import { BINDING_ALIGNMENT } from './tensor.ts';

/** First and last call that binds a tensor, inclusive. */
export interface Life {
  readonly first: number;
  readonly last: number;
}

export interface Packable<Key> {
  readonly key: Key;
  readonly bytes: number;
  /** null: always. */
  readonly life: Life | null;
}

export interface Placed {
  readonly slab: number;
  /** Bytes from the start of the slab. */
  readonly offset: number;
}

export const alignBytes = (bytes: number): number => Math.ceil(bytes / BINDING_ALIGNMENT) * BINDING_ALIGNMENT;

interface Block {
  readonly begin: number;
  readonly end: number;
  readonly life: Life;
}

const meets = (a: Life, b: Life): boolean => a.first <= b.last && b.first <= a.last;

/** The lowest offset at which `size` bytes are free during `life`. */
function lowestGap(blocks: readonly Block[], size: number, life: Life): number {
  let offset = 0;
  for (const block of blocks) {
    if (!meets(block.life, life) || block.end <= offset) continue;
    if (block.begin >= offset + size) break;
    offset = block.end;
  }
  return offset;
}

/**
 * Places everything in slabs of at most `slabLimit` bytes; no item may be larger. Tensors that live always come first, in
 * their order, in slabs of their own.
 */
export function packByLife<Key>(
  items: readonly Packable<Key>[],
  slabLimit: number,
): { places: Map<Key, Placed>; slabs: number[] } {
  const places = new Map<Key, Placed>();
  const slabs: number[] = [];
  for (const { key, bytes } of items.filter(({ life }) => life === null)) {
    const size = alignBytes(bytes);
    let slab = slabs.findIndex((used) => used + size <= slabLimit);
    if (slab < 0) slab = slabs.push(0) - 1;
    const offset = slabs[slab] ?? 0;
    slabs[slab] = offset + size;
    places.set(key, { slab, offset });
  }
  const firstPool = slabs.length;
  const pools: Block[][] = [];
  const shared = items.flatMap(({ key, bytes, life }) => (life ? [{ key, size: alignBytes(bytes), life }] : []));
  shared.sort((a, b) => b.size - a.size || a.life.first - b.life.first);
  for (const { key, size, life } of shared) {
    let pool = 0;
    let offset = lowestGap(pools[0] ?? [], size, life);
    while (offset > 0 && offset + size > slabLimit) {
      pool += 1;
      offset = lowestGap(pools[pool] ?? [], size, life);
    }
    const blocks = pools[pool] ?? [];
    pools[pool] = blocks;
    const at = blocks.findIndex(({ begin }) => begin > offset);
    blocks.splice(at < 0 ? blocks.length : at, 0, { begin: offset, end: offset + size, life });
    places.set(key, { slab: firstPool + pool, offset });
  }
  for (const blocks of pools) slabs.push(blocks.reduce((most, { end }) => Math.max(most, end), 0));
  return { places, slabs };
}
