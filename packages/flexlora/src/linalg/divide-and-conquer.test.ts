import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededStream } from '../random.ts';
import {
  type Dense,
  dense,
  denseSvd,
  distance,
  multiply,
  orthonormalityError,
  rowsOf,
  transposed,
} from '../testing/dense.ts';
import { bidiagonalise } from './bidiagonal.ts';
import { columns } from './columns.ts';
import { decomposeBidiagonal } from './divide-and-conquer.ts';
import { applyReflectors } from './qr.ts';

const bidiagonal = (diagonal: ArrayLike<number>, above: ArrayLike<number>): Dense =>
  dense(diagonal.length, diagonal.length, (i, j) => (i === j ? (diagonal[i] ?? 0) : j === i + 1 ? (above[i] ?? 0) : 0));

/** Checks U · Σ · Vᵀ of the matrix, and gives σ. */
function check(diagonal: number[], above: number[]): number[] {
  const n = diagonal.length;
  const { u, sigma, v } = decomposeBidiagonal(Float64Array.from(diagonal), Float64Array.from(above));
  const [left, right] = [transposed(rowsOf(u.data, n)), transposed(rowsOf(v.data, n))];
  expect(orthonormalityError(left)).toBeLessThan(1e-13);
  expect(orthonormalityError(right)).toBeLessThan(1e-13);
  const scaled = dense(n, n, (i, k) => (left.data[i * n + k] ?? 0) * (sigma[k] ?? 0));
  expect(distance(multiply(scaled, transposed(right)), bidiagonal(diagonal, above))).toBeLessThan(2e-14);
  expect([...sigma]).toEqual([...sigma].sort((a, b) => b - a));
  expect(sigma[n - 1]).toBeGreaterThanOrEqual(0);
  return [...sigma];
}

const draws = (count: number, ...seed: (string | number)[]) => {
  const draw = seededStream('bidiagonal', ...seed);
  return Array.from({ length: count }, draw);
};

describe('decomposeBidiagonal', () => {
  it('decomposes random matrices of any size', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 120 }), fc.integer(), (n, seed) => {
        check(draws(n, 'd', seed), draws(n - 1, 'e', seed));
      }),
      { numRuns: 40 },
    );
  });

  it('finds the values that a decomposition through the Gram matrix finds', () => {
    const [diagonal, above] = [draws(60, 'd'), draws(59, 'e')];
    const expected = denseSvd(bidiagonal(diagonal, above)).sigma;
    for (const [k, value] of check(diagonal, above).entries())
      expect(Math.abs(value - (expected[k] ?? 0))).toBeLessThan(1e-7);
  });

  it('makes only the vectors that are wanted, and the same ones', () => {
    const [diagonal, above] = [Float64Array.from(draws(90, 'd')), Float64Array.from(draws(89, 'e'))];
    const whole = decomposeBidiagonal(diagonal, above);
    for (const count of [0, 1, 17, 90]) {
      const some = decomposeBidiagonal(diagonal, above, count);
      expect(some.sigma).toEqual(whole.sigma);
      for (const side of ['u', 'v'] as const) {
        expect(some[side].cols).toBe(count);
        const expected = whole[side].data.subarray(0, 90 * count);
        expect(some[side].data.every((value, i) => Math.abs(value - (expected[i] ?? 0)) < 1e-13)).toBe(true);
      }
    }
  });

  it('stands equal values, zeros, splits and clusters', () => {
    const n = 77;
    const ones = Array.from({ length: n }, () => 1);
    const zeros = Array.from({ length: n }, () => 0);
    check(ones, zeros.slice(1));
    check(zeros, zeros.slice(1));
    check(zeros, ones.slice(1));
    check(ones, ones.slice(1));
    check(
      ones,
      draws(n - 1, 'tiny').map((value) => value * 1e-12),
    );
    check(
      ones,
      draws(n - 1, 'split').map((value, i) => (i % 7 === 3 ? 0 : value)),
    );
    check(
      draws(n, 'holes').map((value, i) => (i % 5 === 2 ? 0 : value)),
      draws(n - 1, 'e'),
    );
    // Couplings whose squares are lost beside the values'.
    for (const size of [1e-6, 1e-8, 1e-9, 1e-11, 1e-13, 1e-15]) {
      check(
        // Small in the middle row too, so that nothing of the arrow is large.
        ones.map((_, i) => (i === 38 ? size : 1 + i / n)),
        draws(n - 1, 'weak').map((value) => value * size),
      );
    }
    // A value in the middle row only, none beside it.
    check(
      zeros.map((_, i) => (i === 38 ? 1 : 0)),
      zeros.slice(1),
    );
    check(
      zeros,
      zeros.slice(1).map((_, i) => (i === 38 ? 1 : 0)),
    );
    check(
      ones.map((_, i) => 10 ** (-i / 5)),
      ones.slice(1).map((_, i) => 10 ** (-i / 5)),
    );
    check(
      ones.map((_, i) => 10 ** ((i - n) / 5)),
      ones.slice(1).map((_, i) => 10 ** ((i - n) / 5)),
    );
  });
});

describe('bidiagonalise', () => {
  it('is the matrix between two orthogonal ones, over several panels', () => {
    for (const n of [1, 2, 31, 32, 33, 80]) {
      const draw = seededStream('matrix', n);
      const matrix = dense(n, n, draw);
      const { diagonal, above, q, p } = bidiagonalise(columns(n, n, transposed(matrix).data));
      const unit = () => columns(n, n, dense(n, n, (i, j) => (i === j ? 1 : 0)).data);
      const [left, right] = [unit(), unit()];
      applyReflectors(q, left);
      applyReflectors(p, right);
      const [u, v] = [transposed(rowsOf(left.data, n)), transposed(rowsOf(right.data, n))];
      expect(orthonormalityError(u)).toBeLessThan(1e-13);
      expect(orthonormalityError(v)).toBeLessThan(1e-13);
      expect(distance(multiply(multiply(u, bidiagonal(diagonal, above)), transposed(v)), matrix)).toBeLessThan(1e-13);
    }
  });
});
