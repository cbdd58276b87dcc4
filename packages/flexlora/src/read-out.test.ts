import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readOut, readOutState } from './read-out.ts';
import { lowRankOf } from './sum.ts';
import { shapes, tailsOf } from './testing/arbitraries.ts';
import {
  at,
  type Dense,
  dense,
  denseOf,
  multiply,
  norm,
  orthonormalityError,
  productOf,
  randomDense,
  randomFactors,
  rowsOf,
  sum,
  transposed,
} from './testing/dense.ts';
import { type Factors, type LowRank, type Shape, type State, zeroUpdate } from './types.ts';

/** An update and ranks to serve it at; mostly small. The update may have any rank, none too. */
interface Served extends Shape {
  readonly known: number;
  readonly scale: number;
  readonly seed: number;
}

const served = shapes(20).chain((shape) =>
  fc
    .record({
      known: fc.integer({ min: 0, max: Math.min(shape.out, shape.in) }),
      scale: fc.constantFrom(0.5, 1, 2, 16 / 30, 16 / Math.sqrt(30)),
      seed: fc.integer(),
    })
    .map((rest) => ({ ...shape, ...rest })),
);
const LARGEST: [Served][] = [
  [{ out: 256, in: 256, known: 100, scale: 2, seed: 1 }],
  [{ out: 256, in: 90, known: 90, scale: 2, seed: 2 }],
  [{ out: 200, in: 256, known: 0, scale: 2, seed: 3 }],
];

const updateOf = ({ known, seed, ...shape }: Served): LowRank =>
  known === 0 ? zeroUpdate(shape) : lowRankOf(randomFactors({ ...shape, rank: known, wide: true }, seed));

const matrixOf = (rows: number, cols: number, data: ArrayLike<number>): Dense =>
  dense(rows, cols, (i, j) => data[i * cols + j] ?? Number.NaN);

/** What a gradient G of ΔW gives B and A: s·G·Aᵀ and s·Bᵀ·G. A direction is dead where both are zero. */
function expectAlive({ out, in: inner, rank, scale, a, b }: Factors, directions: number, seed: number): void {
  const gradient = randomDense(out, inner, 'gradient', seed);
  const ofB = sum([[scale, multiply(gradient, transposed(matrixOf(rank, inner, a)))]]);
  const ofA = sum([[scale, multiply(transposed(matrixOf(out, rank, b)), gradient)]]);
  for (let k = 0; k < directions; k += 1) {
    const column = dense(out, 1, (i) => at(ofB, i, k));
    const row = dense(1, inner, (_, j) => at(ofA, k, j));
    expect(norm(column) + norm(row)).toBeGreaterThan(0);
    // B sees every direction, so that one without a product yet can get one.
    expect(norm(column)).toBeGreaterThan(0);
  }
}

describe('readOut', () => {
  it('is the best approximation of the update at every rank, at any scale', () => {
    fc.assert(
      fc.property(served, (drawn) => {
        const update = updateOf(drawn);
        const whole = denseOf(update);
        const size = norm(whole);
        const tails = tailsOf([...update.sigma]);
        const full = Math.min(drawn.out, drawn.in);
        const ranks =
          full > 20 ? [1, 8, 30, drawn.known, full, full + 3] : Array.from({ length: full + 2 }, (_, k) => k + 1);
        for (const rank of ranks.filter((each) => each > 0)) {
          const factors = readOut(update, { rank, scale: drawn.scale, seed: 'test' });
          expect([factors.out, factors.in, factors.rank, factors.scale]).toEqual([
            drawn.out,
            drawn.in,
            rank,
            drawn.scale,
          ]);
          const error = norm(
            sum([
              [1, productOf(factors)],
              [-1, whole],
            ]),
          );
          // Eckart and Young, but for float32.
          expect(Math.abs(error - (tails[Math.min(rank, update.rank)] ?? 0))).toBeLessThanOrEqual(1e-6 * size);
        }
      }),
      { examples: LARGEST },
    );
  });

  it('has orthonormal rows in A and no dead direction, up to the size of the matrix', () => {
    fc.assert(
      fc.property(served, fc.integer({ min: 1, max: 24 }), (drawn, rank) => {
        const { out, in: inner, scale, seed } = drawn;
        const update = updateOf(drawn);
        const factors = readOut(update, { rank, scale, seed: String(seed) });
        const { a, b } = factors;
        const directions = Math.min(rank, out, inner);
        expect(orthonormalityError(transposed(rowsOf(a.subarray(0, directions * inner), inner)))).toBeLessThan(1e-6);
        expectAlive(factors, directions, seed);
        for (let k = 0; k < directions; k += 1) {
          const column = Array.from({ length: out }, (_, i) => b[i * rank + k] ?? 0);
          expect(column.some((value) => value !== 0)).toBe(k < update.rank);
        }
        // Padding: zero in both.
        expect(a.subarray(directions * inner).every((value) => value === 0)).toBe(true);
        for (let i = 0; i < out; i += 1) for (let k = directions; k < rank; k += 1) expect(b[i * rank + k]).toBe(0);
      }),
      { examples: LARGEST.flatMap(([drawn]): [Served, number][] => [8, 200, 260].map((rank) => [drawn, rank])) },
    );
  });

  it('is nested: a smaller rank is the first rows and columns of a larger one', () => {
    fc.assert(
      fc.property(served, fc.boolean(), (drawn, averaged) => {
        const { out, in: inner, scale, known, seed } = drawn;
        const full = Math.min(out, inner);
        // Of an average of factors too, which may claim more directions than there are.
        const state: State = averaged
          ? randomFactors({ out, in: inner, rank: known + 1, wide: true }, seed)
          : updateOf(drawn);
        const large = readOutState(state, { rank: full, scale, seed: 'run model.q_proj' });
        const ranks =
          full > 20 ? [1, 8, 30, known, known + 1, full - 1] : Array.from({ length: full }, (_, k) => k + 1);
        for (const rank of ranks.filter((each) => each > 0 && each <= full)) {
          const small = readOutState(state, { rank, scale, seed: 'run model.q_proj' });
          expect(small.a).toEqual(large.a.subarray(0, rank * inner));
          expect(small.b).toEqual(
            Float32Array.from(
              { length: out * rank },
              (_, i) => large.b[Math.floor(i / rank) * full + (i % rank)] ?? Number.NaN,
            ),
          );
          expectAlive(small, rank, seed);
        }
      }),
      { examples: LARGEST.map(([drawn]): [Served, boolean] => [drawn, false]) },
    );
  });

  it('draws other rows for another seed and the same for the same', () => {
    const draw = (seed: string) => readOut(zeroUpdate({ out: 8, in: 8 }), { rank: 3, scale: 2, seed });
    expect(draw('a')).toEqual(draw('a'));
    expect(draw('a').a).not.toEqual(draw('b').a);
  });

  it('fills a whole space with random directions', () => {
    const { a } = readOut(zeroUpdate({ out: 64, in: 64 }), { rank: 64, scale: 1, seed: 'all' });
    expect(orthonormalityError(rowsOf(a, 64))).toBeLessThan(1e-6);
  });

  it('refuses ranks and scales that make no factors, and values beyond float32', () => {
    const update = lowRankOf(randomFactors({ out: 4, in: 4, rank: 2 }, 0));
    for (const rank of [0, -1, 1.5, Number.NaN])
      expect(() => readOut(update, { rank, scale: 1, seed: '' })).toThrow(expect.objectContaining({ code: 'rank' }));
    for (const scale of [0, Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => readOut(update, { rank: 1, scale, seed: '' })).toThrow(
        expect.objectContaining({ code: 'non-finite' }),
      );
    const huge = { ...update, sigma: update.sigma.map((value) => value * 1e300) };
    expect(() => readOut(huge, { rank: 1, scale: 1, seed: '' })).toThrow(/too large for float32/);
  });
});
