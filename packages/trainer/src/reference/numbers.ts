// Lists of float64 numbers and the three products of matrices the reference needs. Matrices are flat, row by row; the
// number of rows follows from the length.

/** Numbers as they come in: float32, float64 or a plain list. */
export type Numbers = ArrayLike<number>;

/** Element `i`. Throws RangeError beyond the end, so that a wrong index cannot pass for a number. */
export function at(numbers: Numbers, i: number): number {
  const value = numbers[i];
  if (value === undefined) throw new RangeError(`Element ${i} of ${numbers.length}.`);
  return value;
}

export const float64 = (numbers: Numbers): Float64Array =>
  numbers instanceof Float64Array ? numbers : Float64Array.from(numbers);

/** x·wᵀ: x [rows, inner], w [columns, inner] → [rows, columns]. */
export function timesTransposed(x: Float64Array, w: Float64Array, inner: number): Float64Array {
  const rows = x.length / inner;
  const columns = w.length / inner;
  const out = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      let sum = 0;
      for (let i = 0; i < inner; i += 1) sum += at(x, row * inner + i) * at(w, column * inner + i);
      out[row * columns + column] = sum;
    }
  }
  return out;
}

/** x·w: x [rows, inner], w [inner, columns] → [rows, columns]. */
export function times(x: Float64Array, w: Float64Array, inner: number): Float64Array {
  const rows = x.length / inner;
  const columns = w.length / inner;
  const out = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row += 1) {
    for (let i = 0; i < inner; i += 1) addTo(out, row * columns, w, i * columns, columns, at(x, row * inner + i));
  }
  return out;
}

/** xᵀ·y: x [rows, m], y [rows, n] → [m, n]. */
export function transposedTimes(x: Float64Array, y: Float64Array, rows: number): Float64Array {
  const m = x.length / rows;
  const n = y.length / rows;
  const out = new Float64Array(m * n);
  for (let row = 0; row < rows; row += 1) {
    for (let i = 0; i < m; i += 1) addTo(out, i * n, y, row * n, n, at(x, row * m + i));
  }
  return out;
}

/** out[first + i] += factor · x[from + i] for `count` elements. */
export function addTo(
  out: Float64Array,
  first: number,
  x: Float64Array,
  from: number,
  count: number,
  factor: number,
): void {
  for (let i = 0; i < count; i += 1) out[first + i] = at(out, first + i) + factor * at(x, from + i);
}

/** Σ x[first + i] · y[from + i] over `count` elements. */
export function dot(x: Float64Array, first: number, y: Float64Array, from: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += at(x, first + i) * at(y, from + i);
  return sum;
}

/** The sum of lists of one length. */
export function sumOf(first: Float64Array, ...others: readonly Float64Array[]): Float64Array {
  const out = Float64Array.from(first);
  for (const other of others) addTo(out, 0, other, 0, other.length, 1);
  return out;
}

/** Element by element. */
export const product = (x: Float64Array, y: Float64Array): Float64Array => x.map((value, i) => value * at(y, i));
