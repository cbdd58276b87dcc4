// What property tests draw: shapes in every orientation, cohorts of mixed ranks, and sums whose singular values are known
// before anything is computed. Mostly small, so that many runs cost little; the extremes are given beside them as examples.
import fc from 'fast-check';
import type { MatrixUpdate } from '../spectrum.ts';
import type { Term } from '../stack.ts';
import type { Factors, Shape } from '../types.ts';
import { normaliseWeights } from '../weights.ts';
import { at, type Dense, dense, denseSum, randomFactors, randomOrthonormal, regauged } from './dense.ts';

/** Wide, tall and square, no side above `max`. */
export const shapes = (max: number): fc.Arbitrary<Shape> => {
  const side = fc.integer({ min: 1, max });
  return fc.tuple(side, side, fc.constantFrom('wide', 'tall', 'square')).map(([a, b, kind]) => {
    if (kind === 'square') return { out: a, in: a };
    const [less, more] = [Math.min(a, b), Math.max(a, b)];
    return kind === 'wide' ? { out: less, in: more } : { out: more, in: less };
  });
};

export interface Cohort extends Shape {
  readonly clients: readonly { readonly rank: number; readonly scale: number; readonly count: number }[];
  readonly seed: number;
}

export const cohorts = ({ side = 20, rank = 12, clients = 6 } = {}): fc.Arbitrary<Cohort> =>
  fc
    .record({
      shape: shapes(side),
      clients: fc.array(
        fc.record({
          rank: fc.integer({ min: 1, max: rank }),
          scale: fc.double({ min: 0.05, max: 8, noNaN: true }),
          count: fc.integer({ min: 1, max: 1000 }),
        }),
        { minLength: 1, maxLength: clients },
      ),
      seed: fc.integer(),
    })
    .map(({ shape, ...rest }) => ({ ...shape, ...rest }));

const cohortOf = (out: number, inner: number, ranks: readonly number[]): Cohort => ({
  out,
  in: inner,
  clients: ranks.map((rank, k) => ({
    rank,
    scale: [2, 0.5, 16 / rank, 16 / Math.sqrt(rank)][k % 4] ?? 1,
    count: 1 + ((k * 37) % 100),
  })),
  seed: out + inner,
});

/** Eighty clients, 80, 5, 5 and 10 % of them of ranks 8, 30, 64 and 128. */
const EIGHTY = Array.from({ length: 80 }, (_, k) => (k % 20 < 16 ? 8 : ([30, 64, 128, 128][(k % 20) - 16] ?? 8)));

/** The largest matrices, ranks and numbers of clients that tests draw, and the thinnest matrices. */
export const EXTREMES: readonly Cohort[] = [
  cohortOf(256, 256, [200]),
  cohortOf(256, 256, EIGHTY),
  cohortOf(256, 96, EIGHTY),
  cohortOf(96, 256, [200, 1, 64, 8]),
  cohortOf(1, 256, [1, 1, 200]),
  cohortOf(
    256,
    1,
    EIGHTY.map(() => 1),
  ),
];

/** Updates of a cohort, in float32 as a tab would send them unless `wide`. */
export const updatesOf = ({ clients, seed, ...shape }: Cohort, { wide = true } = {}): MatrixUpdate[] => {
  const weights = normaliseWeights(clients.map(({ count }) => count));
  return clients.map(({ rank, scale }, k) => ({
    name: `client-${k + 1}`,
    weight: weights[k] ?? 0,
    end: randomFactors({ ...shape, rank, scale, wide }, seed, k),
    start: randomFactors({ ...shape, rank, scale, wide }, seed, k, 'start'),
  }));
};

/** Their ends alone. */
export const termsOf = (updates: readonly MatrixUpdate[]): (Term & { readonly factors: Factors })[] =>
  updates.map(({ weight, end, name = '' }) => ({ weight, factors: end, name }));

export interface Spectrum extends Shape {
  /** Descending, ties among them. */
  readonly sigma: readonly number[];
  readonly clients: number;
  readonly seed: number;
}

/** `falls`: what one singular value may be of the one before; 1 makes ties. */
export const spectra = ({ side = 20, clients = 6, falls = [1, 1, 0.97, 0.8, 0.5, 0.1] } = {}): fc.Arbitrary<Spectrum> =>
  shapes(side).chain((shape) =>
    fc
      .record({
        first: fc.constantFrom(1e-3, 1, 700),
        falls: fc.array(fc.constantFrom(...falls), { maxLength: Math.min(shape.out, shape.in) - 1 }),
        clients: fc.integer({ min: 1, max: clients }),
        seed: fc.integer(),
      })
      .map(({ first, falls: drawn, ...rest }) => {
        const sigma: number[] = [first];
        // Down to where float64 still tells one from the next.
        for (const fall of drawn) sigma.push(Math.max((sigma.at(-1) ?? 0) * fall, 1e-9 * first));
        return { ...shape, ...rest, sigma };
      }),
  );

/**
 * Clients whose weighted sum has these singular values: everyone has some of the directions, or a part of one, in a gauge of
 * its own.
 */
export function termsOfSpectrum(
  { out, in: inner, sigma, clients, seed }: Spectrum,
  { condition = 10 } = {},
): { terms: (Term & { readonly factors: Factors })[]; whole: Dense } {
  const n = sigma.length;
  const u = randomOrthonormal(out, n, 'u', seed);
  const v = randomOrthonormal(inner, n, 'v', seed);
  const owned = Array.from({ length: clients }, (): number[] => []);
  for (let t = 0; t < Math.max(n, clients); t += 1) owned[t % clients]?.push(t % n);
  const owners = Array.from({ length: n }, (_, j) => owned.filter((directions) => directions.includes(j)).length);
  const weight = 1 / clients;
  const scale = 2;
  const terms = owned.map((directions, i) => {
    const part = (j: number): number => (sigma[j] ?? 0) / ((owners[j] ?? 1) * weight * scale);
    const pick = (k: number): number => directions[k] ?? 0;
    const factors = {
      out,
      in: inner,
      rank: directions.length,
      scale,
      a: dense(directions.length, inner, (k, x) => at(v, x, pick(k))).data,
      b: dense(out, directions.length, (y, k) => part(pick(k)) * at(u, y, pick(k))).data,
    };
    return { weight, factors: regauged(factors, condition, seed, i) };
  });
  return { terms, whole: denseSum(terms) };
}

/** ‖σ‖ from each rank on: what the best approximation of rank r errs by. */
export const tailsOf = (sigma: readonly number[], length = sigma.length + 1): number[] =>
  Array.from({ length }, (_, r) => Math.sqrt(sigma.slice(r).reduce((total, value) => total + value * value, 0)));
