// Dense matrices with contiguous columns: what QR and Jacobi rotations walk along. Plain loops over float64, always in
// the same order, so that equal input gives equal bytes.

/** Column k is `data.subarray(k · rows, (k + 1) · rows)`. */
export interface Columns {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

export const columns = (rows: number, cols: number, data: Float64Array = new Float64Array(rows * cols)): Columns => ({
  rows,
  cols,
  data,
});

export const column = ({ rows, data }: Columns, k: number): Float64Array => data.subarray(k * rows, (k + 1) * rows);

/** Σ x[xFrom + i] · y[yFrom + i] over `count` elements, in four running sums. */
export function dot(x: Float64Array, xFrom: number, y: Float64Array, yFrom: number, count: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = 0;
  for (; i + 3 < count; i += 4) {
    s0 += (x[xFrom + i] as number) * (y[yFrom + i] as number);
    s1 += (x[xFrom + i + 1] as number) * (y[yFrom + i + 1] as number);
    s2 += (x[xFrom + i + 2] as number) * (y[yFrom + i + 2] as number);
    s3 += (x[xFrom + i + 3] as number) * (y[yFrom + i + 3] as number);
  }
  for (; i < count; i += 1) s0 += (x[xFrom + i] as number) * (y[yFrom + i] as number);
  return s0 + s1 + (s2 + s3);
}

/** y[yFrom + i] += factor · x[xFrom + i] over `count` elements. */
export function addScaled(
  factor: number,
  x: Float64Array,
  xFrom: number,
  y: Float64Array,
  yFrom: number,
  count: number,
): void {
  for (let i = 0; i < count; i += 1) y[yFrom + i] = (y[yFrom + i] as number) + factor * (x[xFrom + i] as number);
}

export function transpose({ rows, cols, data }: Columns): Columns {
  const result = columns(cols, rows);
  for (let k = 0; k < cols; k += 1)
    for (let i = 0; i < rows; i += 1) result.data[i * cols + k] = data[k * rows + i] as number;
  return result;
}

/** The largest magnitude. */
export const largest = (values: Float64Array): number => {
  let max = 0;
  for (const value of values) max = Math.max(max, Math.abs(value));
  return max;
};
