import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stackTerms, type Term } from './stack.ts';
import { lowRankOf, sumOfProducts } from './sum.ts';
import {
  denseOf,
  denseSvd,
  distance,
  multiply,
  orthonormalityError,
  productOf,
  randomDense,
  randomFactors,
  rowsOf,
  sum,
  transposed,
} from './testing/dense.ts';
import type { Factors } from './types.ts';

const size = fc.integer({ min: 1, max: 20 });
const client = fc.record({
  rank: fc.integer({ min: 1, max: 12 }),
  scale: fc.double({ min: 0.05, max: 8, noNaN: true }),
  weight: fc.double({ min: 0.01, max: 1, noNaN: true }),
});
const cohort = fc.record({
  out: size,
  in: size,
  clients: fc.array(client, { minLength: 1, maxLength: 6 }),
  seed: fc.integer(),
});

const termsOf = ({ out, in: columns, clients, seed }: typeof cohort extends fc.Arbitrary<infer T> ? T : never) =>
  clients.map(({ rank, scale, weight }, k) => ({
    weight,
    factors: randomFactors({ out, in: columns, rank, scale, wide: true }, seed, k),
  }));

const denseSum = (terms: { weight: number; factors: Factors }[]) =>
  sum(terms.map(({ weight, factors }) => [weight, productOf(factors)] as const));

describe('sumOfProducts', () => {
  it('equals the dense sum of weighted products, whatever the sum of ranks', () => {
    fc.assert(
      fc.property(cohort, (drawn) => {
        const terms = termsOf(drawn);
        const { value, discarded } = sumOfProducts(terms);
        expect(distance(denseOf(value), denseSum(terms))).toBeLessThan(1e-12);
        expect(discarded).toBe(0);
        expect(orthonormalityError(transposed(rowsOf(value.u, value.out)))).toBeLessThan(1e-13);
        expect(orthonormalityError(transposed(rowsOf(value.v, value.in)))).toBeLessThan(1e-13);
      }),
      { numRuns: 200 },
    );
  });

  it('widens float32 factors before it computes', () => {
    const terms = [4, 8, 16].map((rank, k) => ({
      weight: (k + 1) / 6,
      factors: randomFactors({ out: 30, in: 20, rank }, k),
    }));
    expect(distance(denseOf(sumOfProducts(terms).value), denseSum(terms))).toBeLessThan(1e-13);
  });

  it('truncates as Eckart and Young: singular values, product and error are those of the dense matrix', () => {
    fc.assert(
      fc.property(cohort, fc.integer({ min: 1, max: 20 }), (drawn, rank) => {
        const terms = termsOf(drawn);
        const whole = denseSum(terms);
        const { value, discarded } = sumOfProducts(terms, { maxRank: rank });
        const reference = denseSvd(whole);
        const first = reference.sigma[0] ?? 0;
        for (const [k, sigma] of value.sigma.entries())
          expect(Math.abs(sigma - (reference.sigma[k] ?? 0))).toBeLessThan(1e-6 * first);
        const error = distance(denseOf(value), whole);
        const best = distance(reference.truncate(rank), whole);
        expect(Math.abs(error - best)).toBeLessThan(1e-6);
        const norm = Math.hypot(...whole.data);
        expect(Math.abs(discarded / norm - best)).toBeLessThan(1e-6);
      }),
    );
  });

  it('does not depend on the order of clients', () => {
    fc.assert(
      fc.property(cohort, fc.integer({ min: 0, max: 5 }), (drawn, turn) => {
        const terms = termsOf(drawn);
        const turned = [...terms.slice(turn % terms.length), ...terms.slice(0, turn % terms.length)];
        expect(distance(denseOf(sumOfProducts(turned).value), denseOf(sumOfProducts(terms).value))).toBeLessThan(1e-12);
      }),
    );
  });

  it('does not depend on the gauge: B·G and G⁻¹·A are the same update', () => {
    fc.assert(
      fc.property(size, size, fc.integer({ min: 1, max: 8 }), fc.integer(), (out, inner, rank, seed) => {
        const factors = randomFactors({ out, in: inner, rank, wide: true }, seed);
        // A unit triangular gauge has an exact inverse by substitution.
        const gauge = randomDense(rank, rank, 'gauge', seed);
        const a = factors.a.slice();
        const b = factors.b.slice();
        for (let k = rank - 1; k > 0; k -= 1) {
          // b_k += g·b_{k−1}, a_{k−1} −= g·a_k keeps Σ b_k·a_k.
          const g = gauge.data[k] ?? 0;
          for (let i = 0; i < out; i += 1) b[i * rank + k] = (b[i * rank + k] ?? 0) + g * (b[i * rank + k - 1] ?? 0);
          for (let i = 0; i < inner; i += 1)
            a[(k - 1) * inner + i] = (a[(k - 1) * inner + i] ?? 0) - g * (a[k * inner + i] ?? 0);
        }
        const changed = sumOfProducts([{ weight: 1, factors: { ...factors, a, b } }]).value;
        expect(distance(denseOf(changed), denseOf(lowRankOf(factors)))).toBeLessThan(1e-11);
      }),
    );
  });

  it('sums updates already decomposed, and cancels what is subtracted', () => {
    const first = randomFactors({ out: 24, in: 16, rank: 5 }, 'first');
    const second = randomFactors({ out: 24, in: 16, rank: 9 }, 'second');
    const { value } = sumOfProducts([
      { weight: 1, factors: lowRankOf(first) },
      { weight: 0.5, factors: second },
      { weight: -0.5, factors: second },
    ]);
    expect(value.rank).toBe(5);
    expect(distance(denseOf(value), productOf(first))).toBeLessThan(1e-13);
    const nothing = sumOfProducts([
      { weight: 0.3, factors: second },
      { weight: -0.3, factors: second },
    ]);
    expect(nothing.value.rank).toBe(0);
    expect(nothing.discarded).toBe(0);
  });

  it('keeps singular values twelve orders below the first', () => {
    const u = randomDense(30, 4, 'u');
    const v = randomDense(4, 25, 'v');
    const graded = (decades: number): Factors => ({
      out: 30,
      in: 25,
      rank: 4,
      scale: 1,
      a: v.data,
      b: u.data.map((value, i) => value * 10 ** (-decades * (i % 4))),
    });
    const { value } = sumOfProducts([{ weight: 1, factors: graded(4) }]);
    expect(value.rank).toBe(4);
    expect((value.sigma[0] ?? 0) / (value.sigma[3] ?? 1)).toBeGreaterThan(1e11);
    expect(
      distance(denseOf(value), multiply({ rows: 30, cols: 4, data: graded(4).b as Float64Array }, v)),
    ).toBeLessThan(1e-13);
  });

  it('leaves out what adds exactly nothing, and has rank 0 for no update at all', () => {
    const untrained = { ...randomFactors({ out: 6, in: 4, rank: 3 }, 0), b: new Float32Array(18) };
    expect(
      stackTerms([
        { weight: 1, factors: untrained },
        { weight: 0, factors: randomFactors({ out: 6, in: 4, rank: 3 }, 1) },
      ]).left.cols,
    ).toBe(0);
    const { value } = sumOfProducts([{ weight: 1, factors: untrained }]);
    expect(value).toEqual({
      out: 6,
      in: 4,
      rank: 0,
      u: new Float64Array(0),
      sigma: new Float64Array(0),
      v: new Float64Array(0),
    });
  });

  it('gives the same bytes for the same input', () => {
    const make = () =>
      sumOfProducts(
        [4, 8, 30].map((rank, k) => ({ weight: 1 / 3, factors: randomFactors({ out: 64, in: 48, rank }, k) })),
        { maxRank: 40 },
      );
    expect(make()).toEqual(make());
  });

  it('refuses by name what cannot be summed', () => {
    const good = randomFactors({ out: 6, in: 4, rank: 2 }, 0);
    const cases: [string, RegExp, Term[]][] = [
      ['weights', /no update/, []],
      ['weights', /weight of late is NaN/, [{ weight: Number.NaN, factors: good, name: 'late' }]],
      [
        'shape',
        /other is \[6, 5\] where \[6, 4\]/,
        [
          { weight: 1, factors: good },
          { weight: 1, factors: randomFactors({ out: 6, in: 5, rank: 2 }, 0), name: 'other' },
        ],
      ],
      ['rank', /short claims rank 2/, [{ weight: 1, factors: { ...good, a: good.a.slice(1) }, name: 'short' }]],
      ['rank', /rank 0/, [{ weight: 1, factors: { ...good, rank: 0 } }]],
      [
        'non-finite',
        /bad, factor B holds NaN at element 3/,
        [{ weight: 1, factors: { ...good, b: good.b.map((value, i) => (i === 3 ? Number.NaN : value)) }, name: 'bad' }],
      ],
      [
        'non-finite',
        /factor A holds -Infinity at element 0/,
        [
          {
            weight: 1,
            factors: { ...good, a: good.a.map((value, i) => (i === 0 ? Number.NEGATIVE_INFINITY : value)) },
          },
        ],
      ],
      ['non-finite', /scale NaN/, [{ weight: 1, factors: { ...good, scale: Number.NaN } }]],
    ];
    for (const [code, message, terms] of cases) {
      expect(() => sumOfProducts(terms)).toThrow(message);
      expect(() => sumOfProducts(terms)).toThrow(expect.objectContaining({ name: 'MergeError', code }));
    }
    expect(() => sumOfProducts([{ weight: 1, factors: good }], { maxRank: 0 })).toThrow(/rank 0/);
  });

  it('merges all matrices of a small model in under two seconds', () => {
    const shapes = Array.from({ length: 5 }, () => [
      [64, 64],
      [32, 64],
      [32, 64],
      [64, 64],
      [172, 64],
      [172, 64],
      [64, 172],
    ]).flat();
    const cohorts = shapes.map(([out = 0, inner = 0], m) =>
      [4, 8, 16].map((rank, k) => ({ weight: 1 / 3, factors: randomFactors({ out, in: inner, rank }, m, k) })),
    );
    const start = performance.now();
    for (const terms of cohorts) sumOfProducts(terms, { maxRank: 64 });
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
