// Singular value decomposition by one-sided Jacobi rotations after two QR steps (Drmač and Veselić, "New fast and accurate
// Jacobi SVD algorithm", 2008). Chosen over bidiagonalisation because small singular values keep their relative accuracy
// and because it is short enough to check by eye; the cores it is given have at most a few hundred columns.
import { MergeError } from '../errors.ts';
import { type Columns, columns, dot, largest, transpose } from './columns.ts';
import { applyQ, qr } from './qr.ts';

/** U · diag(sigma) · Vᵀ with sigma descending; only the singular values above the floor are there. */
export interface Svd {
  /** [rows, rank] */
  readonly u: Columns;
  readonly sigma: Float64Array;
  /** [cols, rank] */
  readonly v: Columns;
}

const MAX_SWEEPS = 60;

/**
 * The singular values above `floor` with their vectors. `floor` is what the caller knows to be rounding noise; without
 * it, max(rows, cols) · ε · σ₁ as in NumPy's matrix_rank. Signs are fixed: the element of largest magnitude of each left
 * vector is positive. Throws MergeError 'non-finite' or 'no-convergence'.
 */
export function svd(matrix: Columns, floor?: number): Svd {
  const { rows, cols } = matrix;
  const scale = powerOfTwoBelow(largestFinite(matrix));
  const empty = { u: columns(rows, 0), sigma: new Float64Array(0), v: columns(cols, 0) };
  if (scale === 0) return empty;
  // Exact, and keeps squares from overflowing or vanishing.
  const scaled = columns(
    rows,
    cols,
    matrix.data.map((value) => value / scale),
  );

  const first = qr(scaled, { pivot: true });
  // ‖R‖ ≥ σ₁, so this is never below the floor that follows from σ₁ by more than the Frobenius norm exceeds it.
  const wholeNorm = Math.sqrt(dot(first.r.data, 0, first.r.data, 0, first.r.data.length));
  const noise = floor === undefined ? Number.EPSILON * wholeNorm : floor / scale;
  const size = significantRows(first.r, noise);
  if (size === 0) return empty;
  const second = qr(transpose(topRows(first.r, size)));
  // matrix · P = Q₁ · Lᵀ… with L = R₂ᵀ lower triangular: its columns are nearly orthogonal already.
  const left = transpose(second.r);
  const right = identity(second.size);
  rotate(left, right);

  const lengths = Float64Array.from({ length: right.cols }, (_, k) => columnNorm(left, k));
  const biggest = largest(lengths);
  const limit = floor === undefined ? Math.max(rows, cols) * Number.EPSILON * biggest : floor / scale;
  const kept = Array.from(lengths, (length, k) => ({ length, k }))
    .filter(({ length }) => length > limit)
    .sort((a, b) => b.length - a.length || a.k - b.k);
  const w = columns(first.size, kept.length);
  const j = columns(second.size, kept.length);
  const sigma = new Float64Array(kept.length);
  for (const [target, { length, k }] of kept.entries()) {
    for (let i = 0; i < left.rows; i += 1)
      w.data[target * first.size + i] = (left.data[k * left.rows + i] as number) / length;
    j.data.set(right.data.subarray(k * right.rows, (k + 1) * right.rows), target * second.size);
    sigma[target] = length * scale;
  }
  const u = applyQ(first, w);
  const v = unpermute(applyQ(second, j), first.order);
  fixSigns(u, v);
  return { u, sigma, v };
}

function largestFinite({ rows, data }: Columns): number {
  for (let i = 0; i < data.length; i += 1) {
    if (!Number.isFinite(data[i])) {
      const place = `row ${i % rows}, column ${Math.floor(i / rows)}`;
      throw new MergeError('non-finite', `The matrix to decompose holds ${data[i]} at ${place}.`);
    }
  }
  return largest(data);
}

/** The largest power of two not above `value`; 0 for 0. By halving, since logarithms differ between engines. */
function powerOfTwoBelow(value: number): number {
  if (value === 0) return 0;
  let power = 1;
  while (power > value) power /= 2;
  while (power <= value / 2) power *= 2;
  return power;
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

const columnNorm = ({ rows, data }: Columns, k: number): number => Math.sqrt(dot(data, k * rows, data, k * rows, rows));

/** Rotates pairs of columns of `x` until all are orthogonal, and those of `j` with them. */
function rotate(x: Columns, j: Columns): void {
  const { rows, cols, data } = x;
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
    if (rotations === 0) return;
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

/** Makes the largest element of every column of `u` positive, the first of equals deciding. */
export function fixSigns(u: Columns, v: Columns): void {
  for (let k = 0; k < u.cols; k += 1) {
    let best = 0;
    for (let i = k * u.rows; i < (k + 1) * u.rows; i += 1) {
      const value = u.data[i] as number;
      if (Math.abs(value) > Math.abs(best)) best = value;
    }
    if (best >= 0) continue;
    for (let i = k * u.rows; i < (k + 1) * u.rows; i += 1) u.data[i] = -(u.data[i] as number);
    for (let i = k * v.rows; i < (k + 1) * v.rows; i += 1) v.data[i] = -(v.data[i] as number);
  }
}
