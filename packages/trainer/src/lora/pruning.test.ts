import type { LoraFactors } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../random.ts';
import { firstDirections, pruned, tailOf, tailProduct } from './pruning.ts';

function factors(module: string, rank: number, tail: number): LoraFactors {
  const random = seededRandom('pruning', module);
  const [columns, out] = [5, 7];
  const draw = (length: number, isTail: (i: number) => boolean) =>
    Float32Array.from({ length }, (_, i) => (isTail(i) ? tail : 1) * (random.uniform() - 0.5));
  const a = draw(rank * columns, (i) => i >= (rank - 1) * columns);
  return {
    module,
    rank,
    in: columns,
    out,
    alpha: 2 * rank,
    scale: 2,
    a,
    b: draw(out * rank, (i) => i % rank === rank - 1),
  };
}
const product = ({ rank, in: columns, out, scale, a, b }: LoraFactors, directions = rank): number[] =>
  Array.from({ length: out * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    let sum = 0;
    for (let k = 0; k < directions; k += 1) sum += (b[row * rank + k] ?? 0) * (a[k * columns + column] ?? 0);
    return scale * sum;
  });
const mapOf = (...all: LoraFactors[]) => new Map(all.map((each) => [each.module, each]));

describe('rank self-pruning', () => {
  it('keeps ⌊γ·r⌋ directions and one at least, and has no tail where that is all', () => {
    const kept = (gamma: number, rank: number) => tailOf({ gamma, lambda: 1 }, rank)?.kept ?? null;
    expect([0.99, 0.5, 1].map((gamma) => kept(gamma, 8))).toEqual([7, 4, null]);
    expect([kept(0.99, 200), kept(0.01, 3), kept(0.5, 1)]).toEqual([198, 1, null]);
    expect(tailOf(null, 8)).toBeNull();
  });

  it('sends the product of the first directions at the same scale', () => {
    const own = factors('m', 4, 1);
    const shorter = firstDirections(own, 3);
    expect(shorter).toMatchObject({ rank: 3, alpha: 6, scale: 2 });
    expect(product(shorter)).toEqual(product(own, 3));
    expect(firstDirections(own, 4)).toBe(own);
  });

  it('decides by the sum over all matrices, of which one may have grown', () => {
    const start = mapOf(factors('m', 4, 1), factors('n', 4, 1));
    const mixed = mapOf(factors('m', 4, 0.1), factors('n', 4, 1.2));
    expect(tailProduct(mixed.values(), 3)).toBeLessThan(tailProduct(start.values(), 3));
    const { factors: sent, isPruned } = pruned(start, mixed, 3);
    expect([isPruned, sent.map(({ rank }) => rank)]).toEqual([true, [3, 3]]);
    const grown = mapOf(factors('m', 4, 1), factors('n', 4, 1.2));
    expect(pruned(start, grown, 3)).toMatchObject({ isPruned: false, factors: [...grown.values()] });
    // No tail has shrunk where nothing moved.
    expect(pruned(start, start, 3).isPruned).toBe(false);
  });

  it('leaves matrices alone that are smaller than what is kept', () => {
    const start = mapOf(factors('m', 4, 1), factors('n', 2, 1));
    const trained = mapOf(factors('m', 4, 0.1), factors('n', 2, 1));
    expect(pruned(start, trained, 3).factors.map(({ rank }) => rank)).toEqual([3, 2]);
  });
});
