// Householder QR, thin, of matrices with more rows than columns or fewer; optionally with column pivoting. Backward stable
// column by column (Higham, "Accuracy and Stability of Numerical Algorithms", §19.3). Q is kept as reflectors: it is only
// ever applied to a few columns.
import { addScaled, type Columns, columns, dot } from './columns.ts';

export interface Qr {
  /** Rows of the factored matrix. */
  readonly rows: number;
  /** min(rows, cols): the number of reflectors and of columns of Q. */
  readonly size: number;
  /** Reflector k is 1 − betas[k] · x·xᵀ with x in column k from row k on. */
  readonly reflectors: Columns;
  readonly betas: Float64Array;
  /** R, upper trapezoidal, [size, cols]. */
  readonly r: Columns;
  /** Column j of R belongs to column order[j] of the matrix. */
  readonly order: Int32Array;
}

/** Turns x = data[from .. from + count) into a reflector in place, and returns its β and the first element of H·x. */
function makeReflector(data: Float64Array, from: number, count: number): { beta: number; head: number } {
  const first = data[from] as number;
  let rest = 0;
  for (let i = 1; i < count; i += 1) rest += (data[from + i] as number) ** 2;
  if (rest === 0) return { beta: 0, head: first };
  const norm = Math.sqrt(first * first + rest);
  const head = first > 0 ? -norm : norm;
  const pivot = first - head;
  data[from] = pivot;
  return { beta: 2 / (pivot * pivot + rest), head };
}

function swapColumns({ rows, data }: Columns, i: number, j: number): void {
  const kept = data.slice(i * rows, (i + 1) * rows);
  data.copyWithin(i * rows, j * rows, (j + 1) * rows);
  data.set(kept, j * rows);
}

/**
 * A · P = Q · R. With `pivot`, the column with the most left of it goes first, so that R's rows fall in size and rank
 * deficiency shows at its end. Entries must be finite and their squares must not overflow.
 */
export function qr(matrix: Columns, { pivot = false }: { pivot?: boolean } = {}): Qr {
  const { rows, cols } = matrix;
  const size = Math.min(rows, cols);
  const work = columns(rows, cols, matrix.data.slice());
  const { data } = work;
  const betas = new Float64Array(size);
  const heads = new Float64Array(size);
  const order = Int32Array.from({ length: cols }, (_, j) => j);
  const leftOver = new Float64Array(cols);
  const measure = (j: number, from: number): number => dot(data, j * rows + from, data, j * rows + from, rows - from);
  if (pivot) for (let j = 0; j < cols; j += 1) leftOver[j] = measure(j, 0);
  for (let k = 0; k < size; k += 1) {
    if (pivot) {
      let best = k;
      for (let j = k + 1; j < cols; j += 1) if ((leftOver[j] as number) > (leftOver[best] as number)) best = j;
      if (best !== k) {
        swapColumns(work, k, best);
        [order[k], order[best]] = [order[best] as number, order[k] as number];
        leftOver[best] = leftOver[k] as number;
      }
    }
    const from = k * rows + k;
    const count = rows - k;
    const { beta, head } = makeReflector(data, from, count);
    betas[k] = beta;
    heads[k] = head;
    for (let j = k + 1; j < cols; j += 1) {
      const at = j * rows + k;
      if (beta !== 0) addScaled(-beta * dot(data, from, data, at, count), data, from, data, at, count);
      // Measured anew rather than downdated: downdating cancels just where the pivot matters.
      if (pivot) leftOver[j] = measure(j, k + 1);
    }
  }
  const r = columns(size, cols);
  for (let j = 0; j < cols; j += 1) {
    const above = Math.min(j, size);
    r.data.set(data.subarray(j * rows, j * rows + above), j * size);
    if (j < size) r.data[j * size + j] = heads[j] as number;
  }
  return { rows, size, reflectors: columns(rows, size, data.subarray(0, rows * size)), betas, r, order };
}

/** Q · X, [rows, X.cols], for X of [size, cols]. */
export function applyQ({ rows, size, reflectors, betas }: Qr, x: Columns): Columns {
  const result = columns(rows, x.cols);
  for (let j = 0; j < x.cols; j += 1) {
    result.data.set(x.data.subarray(j * x.rows, j * x.rows + size), j * rows);
    for (let k = size - 1; k >= 0; k -= 1) {
      const beta = betas[k] as number;
      if (beta === 0) continue;
      const from = k * rows + k;
      const at = j * rows + k;
      const count = rows - k;
      addScaled(
        -beta * dot(reflectors.data, from, result.data, at, count),
        reflectors.data,
        from,
        result.data,
        at,
        count,
      );
    }
  }
  return result;
}
