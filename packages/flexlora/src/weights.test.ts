import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normaliseWeights } from './weights.ts';

const total = (shares: number[]) => shares.reduce((sum, share) => sum + share, 0);

describe('normaliseWeights', () => {
  it('gives shares in proportion where no limit holds', () => {
    expect(normaliseWeights([1, 3])).toEqual([0.25, 0.75]);
    expect(normaliseWeights([10, 70], { maxWeightShare: 0.25 })).toEqual([0.125, 0.875]);
  });

  it('spreads the excess over the others in proportion, from eight clients on', () => {
    const shares = normaliseWeights([700, 50, 50, 40, 40, 40, 40, 40], { maxWeightShare: 0.25 });
    expect(shares[0]).toBe(0.25);
    expect(shares[1]).toBeCloseTo((0.75 * 50) / 300, 12);
    expect(total(shares)).toBeCloseTo(1, 12);
  });

  it('limits those whom the excess lifts over the limit', () => {
    const shares = normaliseWeights([1000, 220, 10, 10, 10, 10, 10, 10], { maxWeightShare: 0.25 });
    expect(shares.slice(0, 2)).toEqual([0.25, 0.25]);
    expect(shares[2]).toBeCloseTo(0.5 / 6, 12);
  });

  it('sums to 1, keeps the limit and the order for any counts', () => {
    const counts = fc.array(fc.oneof(fc.nat(1_000_000), fc.double({ min: 0, max: 1e300, noNaN: true })), {
      minLength: 1,
      maxLength: 30,
    });
    fc.assert(
      fc.property(counts, fc.double({ min: 0.05, max: 1, noNaN: true }), (drawn, maxWeightShare) => {
        fc.pre(drawn.some((count) => count > 0));
        const shares = normaliseWeights(drawn, { maxWeightShare, fromClients: 1 });
        expect(total(shares)).toBeCloseTo(1, 9);
        // A count so much smaller than the largest that its share is below every float64 counts as none.
        const present = shares.filter((share) => share > 0).length;
        const limit = Math.max(maxWeightShare, 1 / present);
        for (const [i, share] of shares.entries()) {
          expect(share).toBeLessThanOrEqual(limit * (1 + 1e-9));
          for (const [j, other] of shares.entries())
            if ((drawn[i] ?? 0) > (drawn[j] ?? 0)) expect(share).toBeGreaterThanOrEqual(other * (1 - 1e-9));
        }
      }),
    );
  });

  it('gives the same shares in any unit', () => {
    const counts = fc.array(fc.nat(1_000_000), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(counts, fc.double({ min: 0.05, max: 1, noNaN: true }), (drawn, maxWeightShare) => {
        fc.pre(drawn.some((count) => count > 0));
        const shares = normaliseWeights(drawn, { maxWeightShare });
        const tenfold = normaliseWeights(
          drawn.map((count) => 10 * count),
          { maxWeightShare },
        );
        for (const [i, share] of shares.entries()) expect(Math.abs((tenfold[i] ?? 0) - share)).toBeLessThan(1e-12);
      }),
    );
  });

  it('takes a count beyond the range of ratios for none', () => {
    expect(normaliseWeights([1, 1e-323, 1, 2], { maxWeightShare: 0.05, fromClients: 1 })).toEqual([
      expect.closeTo(1 / 3, 12),
      0,
      expect.closeTo(1 / 3, 12),
      expect.closeTo(1 / 3, 12),
    ]);
  });

  it('shares equally where the clients are too few for the limit', () => {
    const shares = normaliseWeights([5, 1, 0, 0, 0, 0, 0, 0], { maxWeightShare: 0.1 });
    expect(shares).toEqual([0.5, 0.5, 0, 0, 0, 0, 0, 0]);
  });

  it('refuses what are no weights', () => {
    for (const counts of [[], [0, 0], [1, -1], [Number.NaN], [Number.POSITIVE_INFINITY]])
      expect(() => normaliseWeights(counts)).toThrow(expect.objectContaining({ code: 'weights' }));
    expect(() => normaliseWeights([1], { maxWeightShare: 0 })).toThrow(/must lie in \(0, 1\]/);
    expect(() => normaliseWeights([1], { maxWeightShare: 1.5 })).toThrow(/must lie in \(0, 1\]/);
  });
});
