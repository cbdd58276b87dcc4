import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CappedSum } from './capped-sum.ts';
import type { Term } from './stack.ts';
import {
  type Cohort,
  cohorts,
  EXTREMES,
  type Spectrum,
  spectra,
  termsOf,
  termsOfSpectrum,
  updatesOf,
} from './testing/arbitraries.ts';
import { type Dense, denseOf, denseSum, distance, norm, randomFactors } from './testing/dense.ts';
import type { LowRank, Shape } from './types.ts';

const errorOf = (value: LowRank, whole: Dense): number =>
  norm(whole) === 0 ? norm(denseOf(value)) : distance(denseOf(value), whole) * norm(whole);

const kept = (shape: Shape, terms: readonly Term[], cap: number, maxRank: number) => {
  const capped = new CappedSum(shape, { cap, maxRank });
  for (const term of terms) capped.add(term);
  return capped.finish();
};

describe('CappedSum', () => {
  it('errs by no more than what it has cut off, and not at all below its cap', () => {
    fc.assert(
      fc.property(
        cohorts({ side: 60, rank: 40, clients: 8 }),
        fc.integer({ min: 1, max: 8 }),
        (cohort: Cohort, maxRank) => {
          const terms = termsOf(updatesOf(cohort));
          const whole = denseSum(terms);
          const cap = 4 * maxRank;
          const { value, errorBound } = kept(cohort, terms, cap, maxRank);
          expect(value.rank).toBeLessThanOrEqual(cap);
          expect(errorOf(value, whole)).toBeLessThanOrEqual(errorBound + 1e-12 * norm(whole));
          if (cohort.clients.reduce((ranks, { rank }) => ranks + rank, 0) <= cap) expect(errorBound).toBe(0);
        },
      ),
      { numRuns: 60, examples: EXTREMES.map((cohort): [Cohort, number] => [cohort, 8]) },
    );
  });

  it('counts tails that are small beside the sum', () => {
    const steep = (length: number, tail: number): Spectrum => ({
      out: 256,
      in: 256,
      sigma: Array.from({ length }, (_, k) => (k < 20 ? 0.4 ** k : tail)),
      clients: 1,
      seed: length,
    });
    const falling = spectra({ side: 64, clients: 3, falls: [0.5, 0.3, 0.1] });
    fc.assert(
      fc.property(falling, fc.integer({ min: 1, max: 5 }), (spectrum, maxRank) => {
        const { terms, whole } = termsOfSpectrum(spectrum);
        const { value, errorBound } = kept(spectrum, terms, 4 * maxRank, maxRank);
        expect(errorOf(value, whole)).toBeLessThanOrEqual(errorBound + 1e-12 * norm(whole));
      }),
      { examples: [1e-9, 1e-8, 1e-7].map((tail): [Spectrum, number] => [steep(220, tail / 15), 5]) },
    );
  });

  it('is nothing when what came cancels', () => {
    const factors = randomFactors({ out: 30, in: 20, rank: 6 }, 'cancels');
    const { value, errorBound } = kept(
      factors,
      [
        { weight: 0.5, factors },
        { weight: -0.5, factors },
      ],
      8,
      2,
    );
    expect([value.rank, errorBound]).toEqual([0, 0]);
  });

  it('refuses a cap that would lose what is read out', () => {
    expect(() => new CappedSum({ out: 64, in: 64 }, { cap: 31, maxRank: 8 })).toThrow(/rank 32 at least/);
    expect(() => new CappedSum({ out: 16, in: 64 }, { cap: 16, maxRank: 8 })).not.toThrow();
  });
});
