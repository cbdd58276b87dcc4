import { describe, expect, it } from 'vitest';
import { type MatrixUpdate, matrixReport, normOfSum } from './spectrum.ts';
import { lowRankOf, sumOfProducts } from './sum.ts';
import { type Dense, norm, productOf, randomFactors, sum } from './testing/dense.ts';

const inner = (a: Dense, b: Dense) => a.data.reduce((s, value, i) => s + value * (b.data[i] ?? 0), 0);
const withSigma = (sigma: number[]) => {
  const { value } = sumOfProducts([
    { weight: 1, factors: randomFactors({ out: 12, in: 9, rank: sigma.length }, 'spectrum') },
  ]);
  return { ...value, sigma: Float64Array.from(sigma) };
};
const updateOf = (rank: number, weight: number, ...seed: string[]): MatrixUpdate => ({
  weight,
  end: randomFactors({ out: 12, in: 9, rank }, 'end', rank, ...seed),
  start: randomFactors({ out: 12, in: 9, rank }, 'start', rank, ...seed),
});

describe('matrixReport', () => {
  it('gives energies, truncation errors and the discarded tail relative to the whole', () => {
    const report = matrixReport(withSigma([4, 3, 2]), Math.sqrt(7), [
      updateOf(1, 0.5),
      updateOf(2, 0.3),
      updateOf(8, 0.2),
    ]);
    expect(report.sigma).toEqual([4, 3, 2]);
    expect(report.energyByRank).toEqual([16 / 36, 25 / 36, 29 / 36].map((value) => expect.closeTo(value, 14)));
    expect(report.discardedTail).toBeCloseTo(Math.sqrt(7 / 36), 14);
    expect(report.truncationError).toEqual({
      1: expect.closeTo(Math.sqrt(20 / 36), 14),
      2: expect.closeTo(Math.sqrt(11 / 36), 14),
      8: expect.closeTo(Math.sqrt(7 / 36), 14),
    });
    expect(report.p).toEqual([1, 0.5, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2].map((value) => expect.closeTo(value, 14)));
  });

  it('keeps small truncation errors exact', () => {
    const { truncationError } = matrixReport(withSigma([1, 1e-9]), 0, [updateOf(1, 1)]);
    expect(truncationError[1]).toBeCloseTo(1e-9, 20);
  });

  it('counts equal directions in the effective rank', () => {
    expect(matrixReport(withSigma([5]), 0, [updateOf(1, 1)]).effectiveRank).toBeCloseTo(1, 12);
    expect(matrixReport(withSigma([2, 2, 2, 2]), 0, [updateOf(1, 1)]).effectiveRank).toBeCloseTo(4, 12);
    const between = matrixReport(withSigma([3, 1]), 0, [updateOf(1, 1)]).effectiveRank;
    expect(between).toBeGreaterThan(1);
    expect(between).toBeLessThan(2);
  });

  // The changes have rank 24 in all: wider than the first matrix, whose mean is kept dense, narrower than the second.
  it.each([
    [12, 9],
    [60, 50],
  ])(
    'compares every change of a [%i, %i] with the weighted mean change as the dense matrices would',
    (out, columns) => {
      const updates = [updateOf(1, 0.5), updateOf(4, 0.3), updateOf(6, 0.2), { ...updateOf(2, 0), start: null }].map(
        ({ weight, end, start }) => ({
          weight,
          end: randomFactors({ out, in: columns, rank: end.rank }, 'end', end.rank),
          start: start && randomFactors({ out, in: columns, rank: end.rank }, 'start', end.rank),
        }),
      );
      const changes = updates.map(({ end, start }) =>
        start
          ? sum([
              [1, productOf(end)],
              [-1, productOf(start)],
            ])
          : productOf(end),
      );
      const mean = sum(changes.map((change, i) => [updates[i]?.weight ?? 0, change] as const));
      const { cosineToMean } = matrixReport(lowRankOf(randomFactors({ out, in: columns, rank: 1 }, 0)), 0, updates);
      for (const [i, change] of changes.entries())
        expect(cosineToMean[i]).toBeCloseTo(inner(change, mean) / (norm(change) * norm(mean)), 10);
    },
  );

  it('is 0 for all where changes cancel, few or many', () => {
    for (const count of [2, 40]) {
      const both = [
        randomFactors({ out: 12, in: 9, rank: 3 }, 'one'),
        randomFactors({ out: 12, in: 9, rank: 3 }, 'two'),
      ];
      const updates = Array.from({ length: count }, (_, i) => ({
        weight: 1 / count,
        end: both[i % 2] as (typeof both)[0],
        start: both[1 - (i % 2)] as (typeof both)[0],
      }));
      expect(matrixReport(withSigma([1]), 0, updates).cosineToMean).toEqual(new Array(count).fill(0));
    }
  });

  it('is −1 for the one who pulls the other way and 0 for the one who did not move', () => {
    const moved = updateOf(3, 0.7);
    const opposite = { weight: 0.2, end: moved.start as typeof moved.end, start: moved.end };
    const still = { weight: 0.1, end: moved.end, start: moved.end };
    const { cosineToMean } = matrixReport(withSigma([1]), 0, [moved, opposite, still]);
    expect(cosineToMean).toEqual([expect.closeTo(1, 12), expect.closeTo(-1, 12), 0]);
  });
});

describe('normOfSum', () => {
  it('is the Frobenius norm of the dense sum', () => {
    const factors = [2, 5].map((rank) => randomFactors({ out: 12, in: 9, rank }, 'norm', rank));
    const terms = factors.map((value, i) => ({ weight: i === 0 ? 1 : -0.5, factors: value }));
    const whole = norm(sum(terms.map(({ weight, factors: value }) => [weight, productOf(value)] as const)));
    expect(normOfSum(terms)).toBeCloseTo(whole, 12);
  });
});
