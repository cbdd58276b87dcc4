// The ways a sum is computed agree: QR of stacks, the dense sum, a random subspace, and streams of updates.
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { CappedSum } from './capped-sum.ts';
import { plainTiles, useTileEngine } from './linalg/tiles.ts';
import type { Term } from './stack.ts';
import { type Route, sumOfProducts, UpdateSum } from './sum.ts';
import {
  type Dense,
  dense,
  denseOf,
  denseSvd,
  distance,
  multiply,
  norm,
  productOf,
  randomDense,
  randomFactors,
  sum,
  transposed,
} from './testing/dense.ts';
import type { Factors, LowRank } from './types.ts';

afterEach(() => useTileEngine(null));

const clients = fc.array(fc.record({ rank: fc.integer({ min: 1, max: 40 }), weight: fc.integer({ min: 0, max: 9 }) }), {
  minLength: 1,
  maxLength: 8,
});
const side = fc.integer({ min: 1, max: 90 });

function termsOf(out: number, inner: number, drawn: { rank: number; weight: number }[], seed: number): Term[] {
  return drawn.map(({ rank, weight }, k) => ({
    weight: weight / 9,
    factors: randomFactors({ out, in: inner, rank, wide: true }, seed, k),
  }));
}

/** Directions that fall by a factor each, as updates of training do. */
function decaying(out: number, inner: number, rank: number, factor: number, ...seed: (string | number)[]): Factors {
  const factors = randomFactors({ out, in: inner, rank, wide: true }, ...seed);
  const b = factors.b.map((value, i) => value * factor ** (i % rank));
  return { ...factors, b };
}

/** scale · B · (A · x). */
const applied = ({ out, in: inner, rank, scale, a, b }: Factors, x: Dense): Dense => {
  const ax = multiply({ rows: rank, cols: inner, data: Float64Array.from(a) }, x);
  return sum([[scale, multiply({ rows: out, cols: rank, data: Float64Array.from(b) }, ax)]]);
};

/** U · (σ · (Vᵀ · x)). */
const applyLowRank = ({ out, in: inner, rank, u, sigma, v }: LowRank, x: Dense): Dense => {
  if (rank === 0) return dense(out, x.cols, () => 0);
  const vx = multiply({ rows: rank, cols: inner, data: v }, x);
  const scaled = dense(rank, x.cols, (i, j) => (sigma[i] ?? 0) * (vx.data[i * x.cols + j] ?? 0));
  return multiply(transposed({ rows: rank, cols: out, data: u }), scaled);
};

const denseSum = (terms: readonly Term[]) =>
  sum(terms.map(({ weight, factors }) => [weight, productOf(factors as Factors)] as const));

describe('routes of a sum', () => {
  it('agree, stacked and dense, for any number of clients, and with the sum of products', () => {
    fc.assert(
      fc.property(side, side, clients, fc.integer(), (out, inner, drawn, seed) => {
        const terms = termsOf(out, inner, drawn, seed);
        const whole = denseSum(terms);
        for (const route of ['stacked', 'dense'] satisfies Route[]) {
          const found = sumOfProducts(terms, { route });
          expect(found.route).toBe(route);
          expect(distance(denseOf(found.value), whole)).toBeLessThan(1e-12);
          for (let k = 0; k < found.value.rank; k += 1) {
            const vector = found.value.u.subarray(k * out, (k + 1) * out);
            expect(Math.max(...vector)).toBe(Math.max(...vector.map(Math.abs)));
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  it('are the sum of products at the sizes of small models and cohorts', () => {
    const cohort = fc.array(
      fc.record({ rank: fc.integer({ min: 1, max: 200 }), weight: fc.integer({ min: 0, max: 9 }) }),
      { minLength: 1, maxLength: 80 },
    );
    const large = fc.integer({ min: 1, max: 256 });
    fc.assert(
      fc.property(large, large, cohort, fc.integer(), (out, inner, drawn, seed) => {
        const clipped = drawn.map(({ rank, weight }) => ({ rank: Math.min(rank, out, inner), weight }));
        const terms = termsOf(out, inner, clipped, seed);
        // Against products with a few vectors: the dense sum of eighty clients would take longer than what is tested.
        const { value } = sumOfProducts(terms);
        const x = randomDense(inner, 2, 'probe', seed);
        const expected = sum(terms.map(({ weight, factors }) => [weight, applied(factors as Factors, x)] as const));
        const size = terms.reduce(
          (total, { weight, factors }) => total + weight * norm(applied(factors as Factors, x)),
          0,
        );
        const difference = norm(
          sum([
            [1, applyLowRank(value, x)],
            [-1, expected],
          ]),
        );
        expect(difference).toBeLessThanOrEqual(1e-12 * size);
        const turned = sumOfProducts([...terms].reverse()).value;
        for (const [k, sigma] of value.sigma.entries())
          expect(Math.abs(sigma - (turned.sigma[k] ?? 0))).toBeLessThanOrEqual(1e-12 * (value.sigma[0] ?? 0));
      }),
      { numRuns: 12 },
    );
  });

  it('are chosen by the sum of ranks and the rank wanted', () => {
    const routeOf = (rank: number, count: number, maxRank?: number) =>
      sumOfProducts(
        Array.from({ length: count }, (_, k) => ({ weight: 1, factors: decaying(120, 100, rank, 0.1, k) })),
        maxRank === undefined ? {} : { maxRank },
      ).route;
    expect(routeOf(10, 8)).toBe('stacked');
    expect(routeOf(10, 9)).toBe('dense');
    expect(routeOf(10, 9, 40)).toBe('dense');
    expect(routeOf(10, 9, 4)).toBe('randomised');
  });

  it('find the same first directions at random, to what is declared, and say the same tail', () => {
    const terms = [0, 1, 2].map((k) => ({ weight: 0.5, factors: decaying(150, 130, 60, 0.7, 'random', k) }));
    const exact = sumOfProducts(terms, { route: 'dense', maxRank: 6 });
    const found = sumOfProducts(terms, { route: 'randomised', maxRank: 6, seed: 'run 1' });
    expect(found.route).toBe('randomised');
    const first = exact.value.sigma[0] ?? 0;
    for (const [k, sigma] of found.value.sigma.entries())
      expect(Math.abs(sigma - (exact.value.sigma[k] ?? 0))).toBeLessThan(1e-9 * first);
    expect(distance(denseOf(found.value), denseOf(exact.value))).toBeLessThan(1e-7);
    expect(Math.abs(found.discarded / exact.discarded - 1)).toBeLessThan(1e-7);
    expect(sumOfProducts(terms, { route: 'randomised', maxRank: 6, seed: 'run 1' })).toEqual(found);
    const other = sumOfProducts(terms, { route: 'randomised', maxRank: 6, seed: 'run 2' });
    expect(distance(denseOf(other.value), denseOf(found.value))).toBeLessThan(1e-7);
  });

  it('fall back to the dense one where the spectrum does not fall', () => {
    const terms = Array.from({ length: 12 }, (_, k) => ({
      weight: 1,
      factors: randomFactors({ out: 100, in: 100, rank: 20, wide: true }, 'flat', k),
    }));
    const found = sumOfProducts(terms, { route: 'randomised', maxRank: 4 });
    expect(found.route).toBe('dense');
    expect(found).toEqual(sumOfProducts(terms, { route: 'dense', maxRank: 4 }));
  });

  it('give the same bytes without WebAssembly', () => {
    const terms = [50, 30, 20].map((rank, k) => ({
      weight: 1 / 3,
      factors: decaying(140, 110, rank, 0.9, 'engine', k),
    }));
    for (const route of ['stacked', 'dense', 'randomised'] satisfies Route[]) {
      const fast = sumOfProducts(terms, { route, maxRank: 9 });
      useTileEngine(plainTiles());
      expect(sumOfProducts(terms, { route, maxRank: 9 })).toEqual(fast);
      useTileEngine(null);
    }
  });
});

describe('UpdateSum', () => {
  it('takes updates one by one, goes on after a result, and stays as it was when one is refused', () => {
    const terms = termsOf(
      60,
      50,
      [5, 20, 30, 40].map((rank) => ({ rank, weight: 3 })),
      1,
    );
    const total = new UpdateSum({ out: 60, in: 50 });
    for (const [k, term] of terms.entries()) {
      total.add(term);
      const { value, route } = total.finish();
      expect(route).toBe(k < 2 ? 'stacked' : 'dense');
      expect(distance(denseOf(value), denseSum(terms.slice(0, k + 1)))).toBeLessThan(1e-12);
    }
    const before = total.finish();
    const poisoned = randomFactors({ out: 60, in: 50, rank: 2 }, 'nan');
    poisoned.a[3] = Number.NaN;
    expect(() => total.add({ weight: 1, factors: poisoned, name: 'tab-9' })).toThrow(/tab-9, factor A holds NaN/);
    expect(total.finish()).toEqual(before);
  });

  it('is nothing at first', () => {
    expect(new UpdateSum({ out: 4, in: 3 }).finish()).toMatchObject({ value: { rank: 0 }, discarded: 0 });
  });
});

describe('CappedSum', () => {
  it('errs by no more than what it has cut off, and not at all below its cap', () => {
    fc.assert(
      fc.property(side, side, clients, fc.integer({ min: 1, max: 8 }), fc.integer(), (out, inner, drawn, r, seed) => {
        const terms = termsOf(out, inner, drawn, seed);
        const cap = 4 * r;
        const capped = new CappedSum({ out, in: inner }, { cap, maxRank: r });
        for (const term of terms) capped.add(term);
        const { value, errorBound } = capped.finish();
        const whole = denseSum(terms);
        const size = norm(whole);
        const error = size === 0 ? 0 : distance(denseOf(value), whole) * size;
        expect(value.rank).toBeLessThanOrEqual(cap);
        expect(error).toBeLessThanOrEqual(errorBound + 1e-11 * size);
        const { sigma } = denseSvd(whole);
        if (sigma.filter((each) => each > 1e-6 * (sigma[0] ?? 0)).length === 0) expect(value.rank).toBe(0);
        if (drawn.reduce((ranks, { rank }) => ranks + rank, 0) <= cap) expect(errorBound).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  it('refuses a cap that would lose what is read out', () => {
    expect(() => new CappedSum({ out: 64, in: 64 }, { cap: 31, maxRank: 8 })).toThrow(/rank 32 at least/);
    expect(() => new CappedSum({ out: 16, in: 64 }, { cap: 16, maxRank: 8 })).not.toThrow();
  });
});
