// M = Σ w·s·B·A and its truncations are those of the dense matrix, whatever the shapes, the ranks and the number of clients,
// and whatever is wrong with the factors.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readOut } from '../read-out.ts';
import type { MatrixUpdate } from '../spectrum.ts';
import { STRATEGY_NAMES, strategyByName } from '../strategies/index.ts';
import { type Route, sumOfProducts } from '../sum.ts';
import {
  type Cohort,
  cohorts,
  EXTREMES,
  type Spectrum,
  shapes,
  spectra,
  tailsOf,
  termsOf,
  termsOfSpectrum,
  updatesOf,
} from '../testing/arbitraries.ts';
import {
  denseOf,
  denseOfState,
  denseSum,
  denseSvd,
  distance,
  multiply,
  norm,
  orthonormalityError,
  productOf,
  randomDense,
  randomFactors,
  rowsOf,
  transposed,
  truncationErrors,
} from '../testing/dense.ts';
import { type Factors, isLowRank } from '../types.ts';

const extremes = EXTREMES.map((cohort): [Cohort] => [cohort]);

describe('the sum', () => {
  it('is Σ w·s·B·A to 1e-12 from float64 factors', () => {
    fc.assert(
      fc.property(cohorts(), (cohort) => {
        const terms = termsOf(updatesOf(cohort));
        const { value, discarded } = sumOfProducts(terms);
        expect(distance(denseOf(value), denseSum(terms))).toBeLessThan(1e-12);
        expect(discarded).toBe(0);
        expect(orthonormalityError(transposed(rowsOf(value.u, value.out)))).toBeLessThan(1e-13);
        expect(orthonormalityError(transposed(rowsOf(value.v, value.in)))).toBeLessThan(1e-13);
      }),
      { numRuns: 200, examples: extremes },
    );
  });

  it('is Σ w·s·B·A to 1e-5 from float32 factors, and as it is served; to 1e-12 of what float32 holds', () => {
    fc.assert(
      fc.property(cohorts(), (cohort) => {
        const rounded = termsOf(updatesOf(cohort, { wide: false }));
        const exact = denseSum(termsOf(updatesOf(cohort)));
        const { value } = sumOfProducts(rounded);
        expect(distance(denseOf(value), exact)).toBeLessThan(1e-5);
        expect(distance(denseOf(value), denseSum(rounded))).toBeLessThan(1e-12);
        const served = readOut(value, { rank: Math.min(value.out, value.in), scale: 16 / 30, seed: 'q_proj' });
        expect(distance(productOf(served), exact)).toBeLessThan(1e-5);
      }),
      { examples: [0, 1, 3].flatMap((i) => extremes.slice(i, i + 1)) },
    );
  });

  it('widens half precision before it computes, both kinds and beside float32', () => {
    fc.assert(
      fc.property(cohorts(), (cohort) => {
        const exact = termsOf(updatesOf(cohort, { wide: false }));
        const rounders = [toFloat16, toBfloat16, (value: number) => value];
        const stored = exact.map(({ weight, factors }, k) => {
          const round = rounders[k % 3] ?? toFloat16;
          return { weight, factors: { ...factors, a: factors.a.map(round), b: factors.b.map(round) } };
        });
        const { value } = sumOfProducts(stored);
        // In half precision, or float32, the products and their sum would differ by far more.
        expect(distance(denseOf(value), denseSum(stored))).toBeLessThan(1e-12);
        const widened = stored.map(({ weight, factors }) => ({
          weight,
          factors: { ...factors, a: Float64Array.from(factors.a), b: Float64Array.from(factors.b) },
        }));
        expect(sumOfProducts(widened).value).toEqual(value);
      }),
      { examples: extremes.slice(0, 1) },
    );
    expect([1 / 3, -1e-7, 65_519].map(toFloat16)).toEqual([0.333251953125, -(2 ** -23), 65_504]);
    expect([1 / 3, -1e-7].map(toBfloat16)).toEqual([0.333984375, -1.0011717677116394e-7]);
  });
});

/** To the nearest of so many bits, ties to even, no exponent below `least`. */
function roundTo(value: number, bits: number, least: number): number {
  if (value === 0) return value;
  let exponent = least;
  while (2 ** (exponent + 1) <= Math.abs(value)) exponent += 1;
  const step = 2 ** (exponent - bits + 1);
  // Adding and subtracting 1.5·2⁵² rounds a float64 to whole numbers.
  const whole = 1.5 * 2 ** 52;
  return (value / step + whole - whole) * step;
}
const toFloat16 = (value: number): number => roundTo(value, 11, -14);
const toBfloat16 = (value: number): number => roundTo(value, 8, -126);

describe('truncation (Eckart and Young)', () => {
  /** At ties the product of a truncation is not determined, its error is: so errors are compared, never products. */
  const check = (spectrum: Spectrum, ranks: readonly number[]): void => {
    const { terms, whole } = termsOfSpectrum(spectrum);
    const { sigma } = spectrum;
    const [first = 0] = sigma;
    const size = norm(whole);
    const { value } = sumOfProducts(terms);
    expect(value.rank).toBe(sigma.length);
    for (const [k, wanted] of sigma.entries())
      expect(Math.abs((value.sigma[k] ?? 0) - wanted)).toBeLessThan(1e-12 * first);
    const tails = tailsOf(sigma);
    for (const [rank, error] of truncationErrors(value, whole).entries())
      expect(Math.abs(error - (tails[rank] ?? 0))).toBeLessThan(1e-12 * size);
    for (const maxRank of ranks) {
      const cut = sumOfProducts(terms, { maxRank });
      const wanted = tails[Math.min(maxRank, sigma.length)] ?? 0;
      expect(cut.value.rank).toBe(Math.min(maxRank, sigma.length));
      expect(Math.abs(cut.discarded - wanted)).toBeLessThan(cut.route === 'randomised' ? 1e-8 * size : 1e-12 * size);
      const bound = cut.route === 'randomised' ? 1e-8 : 1e-12;
      expect(Math.abs(distance(denseOf(cut.value), whole) * size - wanted)).toBeLessThan(bound * size);
    }
  };

  it('gives the singular values and errors known beforehand, at every rank and beyond the last, ties too', () => {
    fc.assert(
      fc.property(spectra(), (spectrum) => {
        check(
          spectrum,
          Array.from({ length: Math.min(spectrum.out, spectrum.in) + 2 }, (_, r) => r + 1),
        );
      }),
      { numRuns: 60 },
    );
  });

  it('does so at the largest sizes', () => {
    const falling = (length: number, by: number) => Array.from({ length }, (_, k) => by ** k);
    const stairs = Array.from({ length: 200 }, (_, k) => 5 - Math.floor(k / 40));
    check({ out: 256, in: 256, sigma: falling(200, 0.93), clients: 80, seed: 1 }, [1, 8, 30, 64, 128, 200, 230]);
    check({ out: 256, in: 224, sigma: stairs, clients: 7, seed: 2 }, [1, 39, 40, 41, 199, 200, 224]);
    check({ out: 72, in: 256, sigma: falling(72, 0.8), clients: 80, seed: 3 }, [1, 4, 71, 72, 73, 256]);
    check({ out: 256, in: 1, sigma: [3], clients: 80, seed: 4 }, [1, 2]);
  });

  it('is what a decomposition of the dense matrix gives, for any cohort and every rank', () => {
    fc.assert(
      fc.property(cohorts(), (cohort) => {
        const terms = termsOf(updatesOf(cohort));
        const whole = denseSum(terms);
        const size = norm(whole);
        const reference = denseSvd(whole);
        const { value } = sumOfProducts(terms);
        // The reference takes square roots of eigenvalues, which errs by √ε.
        for (const [k, sigma] of reference.sigma.entries())
          expect(Math.abs((value.sigma[k] ?? 0) - sigma)).toBeLessThan(1e-6 * (reference.sigma[0] ?? 0));
        for (const [rank, error] of truncationErrors(value, whole).entries())
          expect(Math.abs(error - distance(reference.truncate(rank), whole) * size)).toBeLessThan(1e-6 * size);
      }),
      { examples: [[cohortOfSize(80, 60)], [cohortOfSize(60, 80)]] },
    );
  });
});

const cohortOfSize = (out: number, inner: number): Cohort => ({
  out,
  in: inner,
  clients: [1, 8, 30, 64].map((rank) => ({ rank, scale: 16 / rank, count: 1 + rank })),
  seed: out,
});

describe('difficult factors', () => {
  it('of condition 1e12 keep every direction, in any gauge and between any number of clients', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 13, max: 60 }),
        fc.integer({ min: 13, max: 60 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer(),
        (out, inner, clients, seed) => {
          const sigma = Array.from({ length: 13 }, (_, k) => 10 ** -k);
          const { terms, whole } = termsOfSpectrum({ out, in: inner, sigma, clients, seed });
          for (const route of ['stacked', 'dense'] satisfies Route[]) {
            const { value } = sumOfProducts(terms, { route });
            expect(value.rank).toBe(13);
            // Rounding the factors alone moves every singular value by ε·σ₁, which is a part in 4000 of the last.
            for (const [k, wanted] of sigma.entries())
              expect(Math.abs((value.sigma[k] ?? 0) - wanted)).toBeLessThan(5e-14);
            expect(distance(denseOf(value), whole)).toBeLessThan(1e-12);
          }
        },
      ),
      { numRuns: 40, examples: [[256, 128, 5, 1]] },
    );
  });

  it('with nearly equal directions sum to what they are', () => {
    fc.assert(
      fc.property(shapes(40), fc.integer({ min: 2, max: 12 }), fc.integer(), (shape, rank, seed) => {
        // Columns of B that differ by a part in a million.
        const factors = randomFactors({ ...shape, rank, wide: true }, seed);
        const b = factors.b.map((value, i) => (factors.b[i - (i % rank)] ?? 0) + 1e-6 * value);
        const terms = [{ weight: 1, factors: { ...factors, b } }];
        expect(distance(denseOf(sumOfProducts(terms).value), denseSum(terms))).toBeLessThan(1e-12);
      }),
    );
  });

  it('of lower rank than they claim have the rank they have, duplicated clients and directions too', () => {
    const deficient = fc.record({
      shape: shapes(24),
      rank: fc.integer({ min: 1, max: 16 }),
      actual: fc.integer({ min: 1, max: 6 }),
      copies: fc.integer({ min: 1, max: 5 }),
      seed: fc.integer(),
    });
    fc.assert(
      fc.property(deficient, ({ shape, rank, actual, copies, seed }) => {
        // Small whole numbers, so that the dependence is exact.
        const whole = (rows: number, cols: number, ...name: (string | number)[]) => {
          const { data } = randomDense(rows, cols, seed, ...name);
          return { rows, cols, data: data.map((value) => Math.round(4 * value)) };
        };
        const factors: Factors = {
          ...shape,
          rank,
          scale: 2,
          a: multiply(whole(rank, actual, 'mix'), whole(actual, shape.in, 'a')).data,
          b: multiply(whole(shape.out, actual, 'b'), whole(actual, rank, 'mix b')).data,
        };
        const terms = Array.from({ length: copies }, () => ({ weight: 0.5, factors }));
        for (const route of ['stacked', 'dense'] satisfies Route[]) {
          const { value } = sumOfProducts(terms, { route });
          expect(value.rank).toBeLessThanOrEqual(Math.min(actual, rank, shape.out, shape.in));
          expect(distance(denseOf(value), denseSum(terms))).toBeLessThan(1e-12);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('that are all zero merge to nothing with every strategy and route, and are served so that they can train', () => {
    fc.assert(
      fc.property(
        shapes(16),
        fc.integer({ min: 1, max: 5 }),
        fc.boolean(),
        fc.integer(),
        (shape, clients, inB, seed) => {
          const drawn = randomFactors({ ...shape, rank: 3 }, seed);
          const end = inB
            ? { ...drawn, b: new Float32Array(drawn.b.length) }
            : { ...drawn, a: new Float32Array(drawn.a.length) };
          const updates = Array.from({ length: clients }, () => ({ weight: 1 / clients, end, start: end }));
          for (const name of STRATEGY_NAMES) {
            const { next, report } = strategyByName(name).mergeMatrix({ current: null, updates, maxRank: 16 });
            expect(norm(denseOfState(next))).toBe(0);
            if (isLowRank(next)) expect(next.rank).toBe(0);
            expect(report).toMatchObject({ sigma: [], effectiveRank: 0, discardedTail: 0 });
          }
          for (const route of ['stacked', 'dense', 'randomised'] satisfies Route[])
            expect(sumOfProducts([{ weight: 1, factors: end }], { route, maxRank: 2 })).toMatchObject({
              value: { rank: 0 },
              discarded: 0,
            });
        },
      ),
    );
  });

  it('that are not numbers are refused by client, factor and element, by every strategy', () => {
    const drawn = fc.record({
      cohort: cohorts({ side: 8, rank: 4, clients: 5 }),
      bad: fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY),
      which: fc.constantFrom('a', 'b', 'scale', 'weight'),
      client: fc.nat(),
      element: fc.nat(),
    });
    fc.assert(
      fc.property(drawn, ({ cohort, bad, which, client, element }) => {
        const updates = updatesOf(cohort);
        const at = client % updates.length;
        const { end, name, weight, start } = updates[at] as MatrixUpdate;
        const i = element % (which === 'a' ? end.a : end.b).length;
        const poisoned = (values: Factors['a']) => values.map((value, k) => (k === i ? bad : value));
        const spoilt: Record<typeof which, MatrixUpdate> = {
          a: { name: `${name}`, weight, start, end: { ...end, a: poisoned(end.a) } },
          b: { name: `${name}`, weight, start, end: { ...end, b: poisoned(end.b) } },
          scale: { name: `${name}`, weight, start, end: { ...end, scale: bad } },
          weight: { name: `${name}`, weight: bad, start, end },
        };
        const cause = {
          a: `${name} of q_proj, factor A holds ${bad} at element ${i}`,
          b: `${name} of q_proj, factor B holds ${bad} at element ${i}`,
          scale: `${name} of q_proj has scale ${bad}`,
          weight: 'weight',
        }[which];
        for (const strategy of STRATEGY_NAMES) {
          const merge = () =>
            strategyByName(strategy).mergeMatrix({
              current: null,
              updates: updates.with(at, spoilt[which]),
              maxRank: 16,
              name: 'q_proj',
            });
          expect(merge).toThrow(cause);
          expect(merge).toThrow(
            expect.objectContaining({ name: 'MergeError', code: which === 'weight' ? 'weights' : 'non-finite' }),
          );
        }
      }),
    );
  });
});
