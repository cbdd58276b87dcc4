// What a sum is by examples; its laws are in properties/.
import { describe, expect, it } from 'vitest';
import { stackTerms, type Term } from './stack.ts';
import { lowRankOf, sumOfProducts } from './sum.ts';
import { denseOf, distance, productOf, randomFactors } from './testing/dense.ts';

describe('sumOfProducts', () => {
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
