import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dense, distance, multiply, orthonormalityError, randomDense, rowsOf, transposed } from '../testing/dense.ts';
import { columns } from './columns.ts';
import { applyQ, qr } from './qr.ts';

const asColumns = (m: { rows: number; cols: number; data: Float64Array }) =>
  columns(m.rows, m.cols, transposed(m).data);
const identity = (n: number) => columns(n, n, dense(n, n, (i, j) => (i === j ? 1 : 0)).data);

describe('qr', () => {
  it('factors matrices of any shape into an orthonormal Q and an upper R', () => {
    const shapes = fc.record({ rows: fc.integer({ min: 1, max: 24 }), cols: fc.integer({ min: 1, max: 24 }) });
    fc.assert(
      fc.property(shapes, fc.integer(), fc.boolean(), fc.integer({ min: 0, max: 24 }), (shape, seed, pivot, zeroed) => {
        const { rows, cols } = shape;
        const random = randomDense(rows, cols, seed);
        const matrix = dense(rows, cols, (i, j) => (j < zeroed ? 0 : (random.data[i * cols + j] ?? 0)));
        const factored = qr(asColumns(matrix), { pivot });
        const q = transposed(rowsOf(applyQ(factored, identity(factored.size)).data, rows));
        expect(orthonormalityError(q)).toBeLessThan(1e-14 * rows);
        const r = transposed(rowsOf(factored.r.data, factored.size));
        for (let i = 0; i < factored.size; i += 1) for (let j = 0; j < i; j += 1) expect(r.data[i * cols + j]).toBe(0);
        const permuted = dense(rows, cols, (i, j) => matrix.data[i * cols + (factored.order[j] ?? 0)] ?? Number.NaN);
        expect(distance(multiply(q, r), permuted)).toBeLessThan(1e-14 * rows);
      }),
    );
  });

  it('applies its reflectors in blocks', () => {
    for (const [rows, cols] of [
      [70, 33],
      [65, 64],
      [40, 90],
      [97, 97],
    ] as const) {
      const matrix = randomDense(rows, cols, 'blocks');
      for (const pivot of [false, true]) {
        const factored = qr(asColumns(matrix), { pivot });
        const q = transposed(rowsOf(applyQ(factored, identity(factored.size)).data, rows));
        expect(orthonormalityError(q)).toBeLessThan(1e-13);
        const r = transposed(rowsOf(factored.r.data, factored.size));
        const permuted = dense(rows, cols, (i, j) => matrix.data[i * cols + (factored.order[j] ?? 0)] ?? Number.NaN);
        expect(distance(multiply(q, r), permuted)).toBeLessThan(1e-13);
      }
    }
  });

  it('pivots the column with the most left of it to the front, whatever it had at first', () => {
    const size = fc.integer({ min: 2, max: 12 });
    fc.assert(
      fc.property(size, size, fc.integer(), (rows, cols, seed) => {
        // Pairs of nearly equal columns: after the first of a pair, little is left of a column that was large.
        const random = randomDense(rows, cols, seed);
        const noise = randomDense(rows, cols, seed, 'noise');
        const matrix = dense(
          rows,
          cols,
          (i, j) => (random.data[i * cols + (j - (j % 2))] ?? 0) * (cols - j) + 1e-3 * (noise.data[i * cols + j] ?? 0),
        );
        const { r, size: rank } = qr(asColumns(matrix), { pivot: true });
        for (let k = 0; k < rank; k += 1) {
          for (let j = k; j < cols; j += 1) {
            const left = Math.hypot(...r.data.subarray(j * rank + k, j * rank + Math.min(j + 1, rank)));
            expect(left).toBeLessThanOrEqual(Math.abs(r.data[k * rank + k] ?? 0) * (1 + 1e-12));
          }
        }
      }),
    );
  });
});
