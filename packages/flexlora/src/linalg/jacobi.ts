// One-sided Jacobi rotations after two QR steps (Drmač and Veselić, "New fast and accurate Jacobi SVD algorithm", 2008).
// Small singular values keep their relative accuracy, and it is short enough to check by eye: it decomposes what is small,
// and what the faster way could not.
import { MergeError } from '../errors.ts';
import { type Columns, columns, dot, transpose } from './columns.ts';
import { applyQ, qr } from './qr.ts';

const MAX_SWEEPS = 60;

/** Columns of no particular order: matrix = u · diag(lengths) · vᵀ, without those that are zero. */
export interface Rotated {
  /** [rows, rank] */
  readonly u: Columns;
  readonly lengths: Float64Array;
  /** [cols, rank] */
  readonly v: Columns;
}

/**
 * All of the matrix but what lies below `noise` in the Frobenius norm. Squares of entries must not overflow. Throws
 * MergeError 'no-convergence'.
 */
export function jacobiSvd(matrix: Columns, noise: number): Rotated {
  const first = qr(matrix, { pivot: true });
  const size = significantRows(first.r, noise);
  const second = qr(transpose(topRows(first.r, size)));
  // matrix · P = Q₁ · Lᵀ… with L = R₂ᵀ lower triangular: its columns are nearly orthogonal already.
  const left = transpose(second.r);
  const { lengths, turned } = jacobi(left);
  const kept = Array.from({ length: lengths.length }, (_, k) => k).filter((k) => (lengths[k] as number) > 0);
  const w = columns(first.size, kept.length);
  const j = columns(second.size, kept.length);
  for (const [to, k] of kept.entries()) {
    const length = lengths[k] as number;
    for (let i = 0; i < left.rows; i += 1)
      w.data[to * first.size + i] = (left.data[k * left.rows + i] as number) / length;
    j.data.set(turned.data.subarray(k * turned.rows, (k + 1) * turned.rows), to * second.size);
  }
  return {
    u: applyQ(first, w),
    lengths: Float64Array.from(kept, (k) => lengths[k] as number),
    v: unpermute(applyQ(second, j), first.order),
  };
}

/** How many leading rows of a pivoted R hold all but `noise` of its Frobenius norm. */
function significantRows({ rows, cols, data }: Columns, noise: number): number {
  let tail = 0;
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = i; j < cols; j += 1) tail += (data[j * rows + i] as number) ** 2;
    if (Math.sqrt(tail) > noise) return i + 1;
  }
  return 0;
}

function topRows({ rows, cols, data }: Columns, count: number): Columns {
  const result = columns(count, cols);
  for (let j = 0; j < cols; j += 1) result.data.set(data.subarray(j * rows, j * rows + count), j * count);
  return result;
}

function identity(size: number): Columns {
  const result = columns(size, size);
  for (let k = 0; k < size; k += 1) result.data[k * size + k] = 1;
  return result;
}

/**
 * Rotates pairs of columns of `x` in place until all are orthogonal: x · turned, with the lengths of its columns. Throws
 * MergeError 'no-convergence'.
 */
function jacobi(x: Columns): { lengths: Float64Array; turned: Columns } {
  const { rows, cols, data } = x;
  const j = identity(cols);
  const tolerance = Math.sqrt(cols) * Number.EPSILON;
  const squares = new Float64Array(cols);
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep += 1) {
    for (let k = 0; k < cols; k += 1) squares[k] = dot(data, k * rows, data, k * rows, rows);
    let rotations = 0;
    for (let p = 0; p < cols - 1; p += 1) {
      for (let q = p + 1; q < cols; q += 1) {
        const alpha = squares[p] as number;
        const beta = squares[q] as number;
        if (alpha === 0 || beta === 0) continue;
        const gamma = dot(data, p * rows, data, q * rows, rows);
        if (Math.abs(gamma) <= tolerance * Math.sqrt(alpha) * Math.sqrt(beta)) continue;
        rotations += 1;
        const zeta = (beta - alpha) / (2 * gamma);
        const tangent = (zeta >= 0 ? 1 : -1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        rotatePair(data, p * rows, q * rows, rows, cosine, cosine * tangent);
        rotatePair(j.data, p * j.rows, q * j.rows, j.rows, cosine, cosine * tangent);
        squares[p] = dot(data, p * rows, data, p * rows, rows);
        squares[q] = dot(data, q * rows, data, q * rows, rows);
      }
    }
    if (rotations === 0) {
      const lengths = Float64Array.from({ length: cols }, (_, k) =>
        Math.sqrt(dot(data, k * rows, data, k * rows, rows)),
      );
      return { lengths, turned: j };
    }
  }
  throw new MergeError(
    'no-convergence',
    `The singular value decomposition of a [${rows}, ${cols}] core did not converge in ${MAX_SWEEPS} sweeps.`,
  );
}

function rotatePair(data: Float64Array, p: number, q: number, count: number, cosine: number, sine: number): void {
  for (let i = 0; i < count; i += 1) {
    const x = data[p + i] as number;
    const y = data[q + i] as number;
    data[p + i] = cosine * x - sine * y;
    data[q + i] = sine * x + cosine * y;
  }
}

function unpermute({ rows, cols, data }: Columns, order: Int32Array): Columns {
  const result = columns(rows, cols);
  for (let k = 0; k < cols; k += 1)
    for (let i = 0; i < rows; i += 1) result.data[k * rows + (order[i] as number)] = data[k * rows + i] as number;
  return result;
}
