import { describe, expect, it } from 'vitest';
import { type MatrixUpdate, matrixReport, normOfSum } from './spectrum.ts';
import { sumOfProducts } from './sum.ts';
import { norm, productOf, randomFactors, sum } from './testing/dense.ts';

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
});

describe('normOfSum', () => {
  it('is the Frobenius norm of the dense sum', () => {
    const factors = [2, 5].map((rank) => randomFactors({ out: 12, in: 9, rank }, 'norm', rank));
    const terms = factors.map((value, i) => ({ weight: i === 0 ? 1 : -0.5, factors: value }));
    const whole = norm(sum(terms.map(({ weight, factors: value }) => [weight, productOf(value)] as const)));
    expect(normOfSum(terms)).toBeCloseTo(whole, 12);
  });
});
