// The ways a sum is computed agree: QR of stacks, the dense sum, a random subspace, and streams of updates.
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { CappedSum } from './capped-sum.ts';
import { plainTiles, useTileEngine } from './linalg/tiles.ts';
import type { Term } from './stack.ts';
import { type Route, sumOfProducts, UpdateSum } from './sum.ts';
import { type Spectrum, spectra, tailsOf, termsOfSpectrum } from './testing/arbitraries.ts';
import { denseOf, denseSum, distance, norm, randomFactors, sum } from './testing/dense.ts';
import type { Factors } from './types.ts';

afterEach(() => useTileEngine(null));

const clients = fc.array(fc.record({ rank: fc.integer({ min: 1, max: 40 }), weight: fc.integer({ min: 0, max: 9 }) }), {
  minLength: 1,
  maxLength: 8,
});
const side = fc.integer({ min: 1, max: 90 });

function termsOf(
  out: number,
  inner: number,
  drawn: { rank: number; weight: number }[],
  seed: number,
): (Term & { readonly factors: Factors })[] {
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

/** A fall that subspace iteration likes. */
const LARGE: Spectrum = {
  out: 256,
  in: 256,
  sigma: Array.from({ length: 120 }, (_, k) => 0.7 ** k),
  clients: 80,
  seed: 1,
};

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

  it('agree at random, one by one and at a cap, to what each declares, with singular values known beforehand', () => {
    const falling = spectra({ side: 64, clients: 5, falls: [1, 0.9, 0.5, 0.3] });
    let random = 0;
    fc.assert(
      fc.property(falling, fc.integer({ min: 1, max: 12 }), (spectrum, maxRank) => {
        const { sigma, out, in: inner } = spectrum;
        const { terms, whole } = termsOfSpectrum(spectrum);
        const [first = 0] = sigma;
        const size = norm(whole);
        const best = tailsOf(sigma)[Math.min(maxRank, sigma.length)] ?? 0;
        const stream = new UpdateSum({ out, in: inner }, { maxRank });
        for (const term of terms) stream.add(term);
        const sums = (['stacked', 'dense', 'randomised'] satisfies Route[]).map((route) =>
          sumOfProducts(terms, { route, maxRank, seed: 'run 1' }),
        );
        for (const { value, discarded, route } of [...sums, stream.finish()]) {
          if (route === 'randomised') random += 1;
          const bound = route === 'randomised' ? 1e-8 : 1e-12;
          expect(value.rank).toBe(Math.min(maxRank, sigma.length));
          for (const [k, each] of value.sigma.entries())
            expect(Math.abs(each - (sigma[k] ?? 0))).toBeLessThan(bound * first);
          const error = norm(
            sum([
              [1, denseOf(value)],
              [-1, whole],
            ]),
          );
          expect(Math.abs(error - best)).toBeLessThan(bound * size);
          expect(Math.abs(discarded - error)).toBeLessThan(bound * size);
        }
        const capped = new CappedSum({ out, in: inner }, { cap: 4 * maxRank, maxRank });
        for (const term of terms) capped.add(term);
        const { value, errorBound } = capped.finish();
        expect(distance(denseOf(value), whole) * size).toBeLessThanOrEqual(errorBound + 1e-12 * size);
      }),
      {
        numRuns: 80,
        examples: [
          [LARGE, 6],
          [{ ...LARGE, out: 200, in: 256 }, 12],
        ],
      },
    );
    // The random one falls back where it must, and must not always.
    expect(random).toBeGreaterThan(10);
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
