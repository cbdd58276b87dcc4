import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MergeError } from '../errors.ts';
import {
  type Dense,
  dense,
  denseSvd,
  distance,
  multiply,
  orthonormalityError,
  randomDense,
  randomOrthonormal,
  rowsOf,
  transposed,
} from '../testing/dense.ts';
import { columns } from './columns.ts';
import { svd } from './svd.ts';

const asColumns = (m: Dense) => columns(m.rows, m.cols, transposed(m).data);

function decompose(m: Dense): { u: Dense; v: Dense; sigma: number[]; product: Dense } {
  const { u, sigma, v } = svd(asColumns(m));
  const left = transposed(rowsOf(u.data, m.rows));
  const right = transposed(rowsOf(v.data, m.cols));
  const scaled = dense(m.rows, sigma.length, (i, k) => (left.data[i * sigma.length + k] ?? 0) * (sigma[k] ?? 0));
  return { u: left, v: right, sigma: [...sigma], product: multiply(scaled, transposed(right)) };
}

const withSigma = (rows: number, cols: number, sigma: number[]): Dense => {
  const u = randomOrthonormal(rows, sigma.length, 'u', rows, cols);
  const v = randomOrthonormal(cols, sigma.length, 'v', rows, cols);
  const scaled = dense(rows, sigma.length, (i, k) => (u.data[i * sigma.length + k] ?? 0) * (sigma[k] ?? 0));
  return multiply(scaled, transposed(v));
};

describe('svd', () => {
  it('equals a decomposition through the Gram matrix, for any shape and rank', () => {
    const size = fc.integer({ min: 1, max: 16 });
    fc.assert(
      fc.property(size, size, size, fc.integer(), (rows, cols, rank, seed) => {
        const m = multiply(randomDense(rows, rank, seed, 'l'), randomDense(rank, cols, seed, 'r'));
        const { u, v, sigma, product } = decompose(m);
        expect(sigma.length).toBeLessThanOrEqual(Math.min(rows, cols, rank));
        expect(distance(product, m)).toBeLessThan(1e-13);
        expect(orthonormalityError(u)).toBeLessThan(1e-13);
        expect(orthonormalityError(v)).toBeLessThan(1e-13);
        expect(sigma).toEqual([...sigma].sort((a, b) => b - a));
        const expected = denseSvd(m).sigma;
        for (const [k, value] of sigma.entries())
          expect(Math.abs(value - (expected[k] ?? 0))).toBeLessThan(2e-7 * (expected[0] ?? 1));
      }),
    );
  });

  it('finds singular values over twelve orders of magnitude', () => {
    const wanted = Array.from({ length: 13 }, (_, k) => 10 ** -k);
    for (const [rows, cols] of [
      [40, 13],
      [13, 40],
      [20, 20],
    ] as const) {
      const { sigma, u, v } = decompose(withSigma(rows, cols, wanted));
      expect(sigma).toHaveLength(13);
      // Forming the matrix alone costs ε·σ₁ in every singular value.
      for (const [k, value] of wanted.entries()) expect(Math.abs((sigma[k] ?? 0) - value)).toBeLessThan(3e-15);
      expect(orthonormalityError(u)).toBeLessThan(1e-13);
      expect(orthonormalityError(v)).toBeLessThan(1e-13);
    }
  });

  it('keeps the relative accuracy of tiny singular values where the matrix determines them', () => {
    // Rows scaled over 24 orders: a Gram matrix or bidiagonalisation would lose all but the first few.
    const well = randomOrthonormal(8, 8, 'graded');
    const graded = dense(8, 8, (i, j) => (well.data[i * 8 + j] ?? 0) * 10 ** (-3 * i));
    const { sigma } = svd(asColumns(graded), { floor: 0 });
    const product = sigma.reduce((p, value) => p * value, 1);
    expect(product / 10 ** (-3 * 28)).toBeCloseTo(1, 12);
  });

  it('reports the rank of a deficient matrix, and repeated singular values', () => {
    expect(decompose(withSigma(12, 9, [3, 3, 3, 1])).sigma.map((value) => value.toFixed(12))).toEqual([
      '3.000000000000',
      '3.000000000000',
      '3.000000000000',
      '1.000000000000',
    ]);
    expect(decompose(dense(5, 4, () => 0)).sigma).toEqual([]);
    expect(decompose(dense(5, 4, (i, j) => (i === 2 && j === 1 ? -7 : 0))).sigma).toEqual([7]);
    expect(decompose(dense(1, 1, () => -2))).toMatchObject({ sigma: [2] });
  });

  it('does not overflow or vanish at the ends of float64', () => {
    for (const scale of [1e-200, 1e200]) {
      const { sigma } = decompose(dense(2, 2, (i, j) => (i === j ? scale * (i + 1) : 0)));
      expect(sigma.map((value) => value / scale)).toEqual([expect.closeTo(2, 12), expect.closeTo(1, 12)]);
    }
  });

  it('fixes signs: the largest element of every left vector is positive', () => {
    const m = randomDense(9, 7, 'signs');
    const { u } = decompose(m);
    const negated = decompose(dense(9, 7, (i, j) => -(m.data[i * 7 + j] ?? 0)));
    for (const vectors of [u, negated.u]) {
      for (let k = 0; k < 7; k += 1) {
        const column = Array.from({ length: 9 }, (_, i) => vectors.data[i * 7 + k] ?? 0);
        expect(Math.max(...column)).toBe(Math.max(...column.map(Math.abs)));
      }
    }
  });

  it('refuses NaN and infinity by place', () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const m = dense(3, 2, (i, j) => (i === 2 && j === 1 ? bad : 1));
      expect(() => svd(asColumns(m))).toThrow(MergeError);
      expect(() => svd(asColumns(m))).toThrow(/row 2, column 1/);
    }
  });
});
