// Reduction of a square matrix to upper bidiagonal form, Qᵀ·A·P = B, in panels: half of the work is products of matrices,
// half products with vectors (Dongarra, Hammarling and Sorensen, 1989; LAPACK's dgebrd and dlabrd).
import { addScaled, type Columns, columns, dot } from './columns.ts';
import { addProduct, transposedView, view } from './product.ts';
import { makeReflector, PANEL, type Reflectors, reflectorsOf } from './qr.ts';

export interface Bidiagonal {
  /** [n] */
  readonly diagonal: Float64Array;
  /** [n − 1], above the diagonal. */
  readonly above: Float64Array;
  readonly q: Reflectors;
  readonly p: Reflectors;
}

/** y += factor · Σ coefficients(j) · column j of `x` for rows [top, rows), four columns at a time. */
function addColumns(
  y: Float64Array,
  x: Columns,
  top: number,
  [first, end]: readonly [number, number],
  factor: number,
  coefficients: (j: number) => number,
): void {
  const { rows, data } = x;
  let j = first;
  for (; j + 3 < end; j += 4) {
    const c0 = factor * coefficients(j);
    const c1 = factor * coefficients(j + 1);
    const c2 = factor * coefficients(j + 2);
    const c3 = factor * coefficients(j + 3);
    const at = j * rows;
    for (let i = top; i < rows; i += 1) {
      y[i] =
        (y[i] as number) +
        (c0 * (data[at + i] as number) + c1 * (data[at + rows + i] as number)) +
        (c2 * (data[at + 2 * rows + i] as number) + c3 * (data[at + 3 * rows + i] as number));
    }
  }
  for (; j < end; j += 1) addScaled(factor * coefficients(j), data, j * rows + top, y, top, rows - top);
}

/** The entries must be finite, and their squares must not overflow. `matrix` is overwritten. */
export function bidiagonalise(matrix: Columns): Bidiagonal {
  const n = matrix.cols;
  const { data } = matrix;
  const diagonal = new Float64Array(n);
  const above = new Float64Array(Math.max(0, n - 1));
  const [left, right] = [columns(n, n), columns(n, n)];
  const [leftBetas, rightBetas] = [new Float64Array(n), new Float64Array(n)];
  const column = new Float64Array(n);
  const row = new Float64Array(n);
  for (let first = 0; first < n; first += PANEL) {
    const end = Math.min(n, first + PANEL);
    // Of the trailing matrix only A − V·Yᵀ − X·Uᵀ is kept until the panel is done: V and U are the reflectors.
    const x = columns(n, end - first);
    const y = columns(n, end - first);
    for (let k = first; k < end; k += 1) {
      const done: [number, number] = [0, k - first];
      // Column k as it is by now, and its reflector.
      column.set(data.subarray(k * n + k, (k + 1) * n), k);
      addColumns(column, columnsFrom(left, first, k), k, done, -1, (j) => y.data[j * n + k] as number);
      addColumns(column, x, k, done, -1, (j) => right.data[(first + j) * n + k] as number);
      const reflectLeft = makeReflector(column, k, n - k);
      diagonal[k] = reflectLeft.head;
      leftBetas[k] = reflectLeft.beta;
      if (reflectLeft.beta !== 0) left.data.set(column.subarray(k), k * n + k);
      if (k === n - 1) continue;
      // Row k by now, without the new reflector: what it was before plus earlier panels' work.
      const at = k * n + k;
      const yk = y.data.subarray((k - first) * n, (k - first + 1) * n);
      if (reflectLeft.beta !== 0) {
        const v = left.data;
        for (let j = k + 1; j < n; j += 1) yk[j] = dot(data, j * n + k, v, at, n - k);
        const ofV = productsWith(columnsFrom(left, first, k), v, at, k, done[1]);
        addColumns(yk, y, k + 1, done, -1, (j) => ofV[j] as number);
        const ofX = productsWith(x, v, at, k, done[1]);
        addColumns(yk, columnsFrom(right, first, k), k + 1, done, -1, (j) => ofX[j] as number);
        for (let j = k + 1; j < n; j += 1) yk[j] = (yk[j] as number) * reflectLeft.beta;
      }
      for (let j = k + 1; j < n; j += 1) row[j] = data[j * n + k] as number;
      const upToK: [number, number] = [0, k - first + 1];
      addColumns(row, y, k + 1, upToK, -1, (j) => left.data[(first + j) * n + k] as number);
      addColumns(row, columnsFrom(right, first, k), k + 1, done, -1, (j) => x.data[j * n + k] as number);
      const reflectRight = makeReflector(row, k + 1, n - k - 1);
      above[k] = reflectRight.head;
      rightBetas[k] = reflectRight.beta;
      if (reflectRight.beta === 0) continue;
      right.data.set(row.subarray(k + 1), k * n + k + 1);
      const xk = x.data.subarray((k - first) * n, (k - first + 1) * n);
      const u = right.data;
      addColumns(xk, matrix, k + 1, [k + 1, n], 1, (j) => u[k * n + j] as number);
      const ofY = productsWith(y, u, k * n + k + 1, k + 1, upToK[1]);
      addColumns(xk, columnsFrom(left, first, k + 1), k + 1, upToK, -1, (j) => ofY[j] as number);
      const ofU = productsWith(columnsFrom(right, first, k), u, k * n + k + 1, k + 1, done[1]);
      addColumns(xk, x, k + 1, done, -1, (j) => ofU[j] as number);
      for (let i = k + 1; i < n; i += 1) xk[i] = (xk[i] as number) * reflectRight.beta;
    }
    if (end === n) break;
    const trailing = view(matrix, end, end);
    const panel = end - first;
    addProduct(-1, view(left, end, first, n - end, panel), transposedView(view(y, end, 0)), trailing);
    addProduct(-1, view(x, end, 0), transposedView(view(right, end, first, n - end, panel)), trailing);
  }
  return { diagonal, above, q: reflectorsOf(left, leftBetas), p: reflectorsOf(right, rightBetas, 1) };
}

/** Columns [first, end) of a matrix as one of its own. */
const columnsFrom = ({ rows, data }: Columns, first: number, end: number): Columns =>
  columns(rows, end - first, data.subarray(first * rows, end * rows));

/** Inner products of the first `count` columns of `x` with a vector, over rows [top, rows). */
function productsWith({ rows, data }: Columns, vector: Float64Array, from: number, top: number, count: number) {
  return Float64Array.from({ length: count }, (_, j) => dot(data, j * rows + top, vector, from, rows - top));
}
