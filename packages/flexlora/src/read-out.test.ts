import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readOut } from './read-out.ts';
import { lowRankOf } from './sum.ts';
import {
  denseOf,
  denseSvd,
  distance,
  orthonormalityError,
  productOf,
  randomFactors,
  rowsOf,
  transposed,
} from './testing/dense.ts';
import { zeroUpdate } from './types.ts';

const size = fc.integer({ min: 1, max: 20 });

describe('readOut', () => {
  it('is the best approximation of the update at every rank, at any scale', () => {
    fc.assert(
      fc.property(
        size,
        size,
        fc.integer({ min: 1, max: 12 }),
        fc.constantFrom(0.5, 1, 2, 16 / 30),
        fc.integer(),
        (out, inner, rank, scale, seed) => {
          const update = lowRankOf(randomFactors({ out, in: inner, rank, wide: true }, seed));
          const reference = denseSvd(denseOf(update));
          for (const r of [1, 2, 5, 12]) {
            const served = readOut(update, { rank: r, scale, seed: 'test' });
            expect([served.out, served.in, served.rank, served.scale]).toEqual([out, inner, r, scale]);
            const error = distance(productOf(served), denseOf(update));
            expect(Math.abs(error - distance(reference.truncate(r), denseOf(update)))).toBeLessThan(1e-6);
          }
        },
      ),
    );
  });

  it('has orthonormal rows in A and no dead direction, up to the size of the matrix', () => {
    fc.assert(
      fc.property(
        size,
        size,
        fc.integer({ min: 0, max: 6 }),
        fc.integer({ min: 1, max: 24 }),
        fc.integer(),
        (out, inner, known, rank, seed) => {
          const shape = { out, in: inner };
          const update = known === 0 ? zeroUpdate(shape) : lowRankOf(randomFactors({ ...shape, rank: known }, seed));
          const { a, b } = readOut(update, { rank, scale: 2, seed: String(seed) });
          const directions = Math.min(rank, out, inner);
          expect(orthonormalityError(transposed(rowsOf(a.subarray(0, directions * inner), inner)))).toBeLessThan(1e-6);
          for (let k = 0; k < directions; k += 1) {
            const column = Array.from({ length: out }, (_, i) => b[i * rank + k] ?? 0);
            expect(column.some((value) => value !== 0)).toBe(k < update.rank);
          }
          // Padding: zero in both.
          expect(a.subarray(directions * inner).every((value) => value === 0)).toBe(true);
          for (let i = 0; i < out; i += 1) for (let k = directions; k < rank; k += 1) expect(b[i * rank + k]).toBe(0);
        },
      ),
    );
  });

  it('is nested: a smaller rank is the first rows and columns of a larger one', () => {
    const update = lowRankOf(randomFactors({ out: 18, in: 14, rank: 5 }, 'nested'));
    const large = readOut(update, { rank: 14, scale: 2, seed: 'run model.q_proj' });
    for (const rank of [1, 4, 5, 6, 9, 13]) {
      const small = readOut(update, { rank, scale: 2, seed: 'run model.q_proj' });
      expect(small.a).toEqual(large.a.subarray(0, rank * 14));
      for (let i = 0; i < 18; i += 1)
        expect(small.b.subarray(i * rank, (i + 1) * rank)).toEqual(large.b.subarray(i * 14, i * 14 + rank));
    }
  });

  it('draws other rows for another seed and the same for the same', () => {
    const draw = (seed: string) => readOut(zeroUpdate({ out: 8, in: 8 }), { rank: 3, scale: 2, seed });
    expect(draw('a')).toEqual(draw('a'));
    expect(draw('a').a).not.toEqual(draw('b').a);
  });

  it('fills a whole space with random directions', () => {
    const { a } = readOut(zeroUpdate({ out: 64, in: 64 }), { rank: 64, scale: 1, seed: 'all' });
    expect(orthonormalityError(rowsOf(a, 64))).toBeLessThan(1e-6);
  });

  it('refuses ranks and scales that make no factors, and values beyond float32', () => {
    const update = lowRankOf(randomFactors({ out: 4, in: 4, rank: 2 }, 0));
    for (const rank of [0, -1, 1.5, Number.NaN])
      expect(() => readOut(update, { rank, scale: 1, seed: '' })).toThrow(expect.objectContaining({ code: 'rank' }));
    for (const scale of [0, Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => readOut(update, { rank: 1, scale, seed: '' })).toThrow(
        expect.objectContaining({ code: 'non-finite' }),
      );
    const huge = { ...update, sigma: update.sigma.map((value) => value * 1e300) };
    expect(() => readOut(huge, { rank: 1, scale: 1, seed: '' })).toThrow(/too large for float32/);
  });
});
