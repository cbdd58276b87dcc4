// Updates whose factors are read when they are taken, as a merge from files has them.
import { describe, expect, it } from 'vitest';
import type { MatrixUpdate } from '../spectrum.ts';
import { lowRankOf } from '../sum.ts';
import { randomFactors } from '../testing/dense.ts';
import type { Factors } from '../types.ts';
import { STRATEGY_NAMES, strategyByName } from './index.ts';

const CLIENTS = 30;
/** Σr is far beyond the width of the first, and not of the second. */
const SHAPES = [
  { out: 24, in: 20 },
  { out: 300, in: 260 },
];

describe.each(STRATEGY_NAMES)('%s', (name) => {
  it('takes the factors of every update a few times, and merges what it would of arrays', () => {
    for (const shape of SHAPES) {
      // One rank and one A, which every strategy takes.
      const { a } = randomFactors({ ...shape, rank: 4 }, 'A');
      const plain = Array.from({ length: CLIENTS }, (_, i): MatrixUpdate => {
        const factors = (what: string): Factors => ({ ...randomFactors({ ...shape, rank: 4 }, what, i), a });
        return { weight: 1 / CLIENTS, end: factors('end'), start: factors('start') };
      });
      const reads = new Map<string, number>();
      const lazy = plain.map(({ weight, end, start }, i) => {
        const counted = (of: string, factors: Factors): Factors => {
          const take = (factor: 'a' | 'b') => {
            const key = `${of} ${i} ${factor}`;
            reads.set(key, (reads.get(key) ?? 0) + 1);
            return factors[factor];
          };
          const { out, in: inner, rank, scale } = factors;
          return {
            out,
            in: inner,
            rank,
            scale,
            get a() {
              return take('a');
            },
            get b() {
              return take('b');
            },
          };
        };
        return { weight, end: counted('end', end), start: start && counted('start', start) };
      });
      const current = lowRankOf(randomFactors({ ...shape, rank: 6 }, 'state'));
      const merge = (updates: MatrixUpdate[]) =>
        strategyByName(name).mergeMatrix({ current, updates, maxRank: 16, name: 'q_proj' });
      expect(merge(lazy)).toEqual(merge(plain));
      expect(reads.size).toBe(4 * CLIENTS);
      expect(Math.max(...reads.values())).toBeLessThanOrEqual(6);
    }
  });
});
