// Singular value decomposition: of small matrices by Jacobi rotations, of larger ones through bidiagonal form by divide and
// conquer. Whatever that could not do, and a check finds, the rotations do.
import { MergeError } from '../errors.ts';
import { bidiagonalise } from './bidiagonal.ts';
import { type Columns, columns, dot, largest, transpose } from './columns.ts';
import { decomposeBidiagonal } from './divide-and-conquer.ts';
import { jacobiSvd, type Rotated } from './jacobi.ts';
import { applyQ, applyReflectors, qr } from './qr.ts';

/** U · diag(sigma) · Vᵀ with sigma descending; only the singular values above the floor are there. */
export interface Svd {
  /** [rows, rank], or its first columns where fewer were asked for. */
  readonly u: Columns;
  readonly sigma: Float64Array;
  /** [cols, rank], or its first columns. */
  readonly v: Columns;
}

export interface SvdOptions {
  /** What the caller knows to be rounding noise; without it, max(rows, cols) · ε · σ₁ as in NumPy's matrix_rank. */
  readonly floor?: number;
  /** Singular vectors wanted, the first ones; all unless said. Singular values come all. */
  readonly vectors?: number;
}

/** Up to so many rows or columns rotations are as fast, and more accurate. */
const SMALL = 32;
/** What the norm of the parts may differ from that of the whole, relative, before a decomposition counts as failed. */
const NORM_TOLERANCE = 1e-10;

/**
 * The singular values above the floor with their vectors. Signs are fixed: the element of largest magnitude of each left
 * vector is positive. Throws MergeError 'non-finite' or 'no-convergence'.
 */
export function svd(matrix: Columns, { floor, vectors = Number.POSITIVE_INFINITY }: SvdOptions = {}): Svd {
  const { rows, cols } = matrix;
  const scale = powerOfTwoBelow(largestFinite(matrix));
  if (scale === 0) return { u: columns(rows, 0), sigma: new Float64Array(0), v: columns(cols, 0) };
  // Exact, and keeps squares from overflowing or vanishing.
  const scaled = columns(
    rows,
    cols,
    matrix.data.map((value) => value / scale),
  );
  const size = Math.min(rows, cols);
  const given = floor === undefined ? undefined : floor / scale;
  const limit = (biggest: number): number => given ?? Math.max(rows, cols) * Number.EPSILON * biggest;
  const fast = size > SMALL ? byDivision(scaled, vectors, limit) : null;
  const { u, sigma, v } = fast ?? byRotation(scaled, vectors, limit, given);
  fixSigns(u, v);
  return { u, sigma: sigma.map((value) => value * scale), v };
}

/** The reference: any matrix, in time that grows with the number of sweeps. */
function byRotation(
  matrix: Columns,
  vectors: number,
  limit: (biggest: number) => number,
  floor: number | undefined,
): Svd {
  const norm = Math.sqrt(dot(matrix.data, 0, matrix.data, 0, matrix.data.length));
  return ordered(jacobiSvd(matrix, floor ?? Number.EPSILON * norm), vectors, limit);
}

function ordered({ u, lengths, v }: Rotated, vectors: number, limit: (biggest: number) => number): Svd {
  const least = limit(largest(lengths));
  const kept = Array.from(lengths, (length, k) => ({ length, k }))
    .filter(({ length }) => length > least)
    .sort((a, b) => b.length - a.length || a.k - b.k);
  const first = kept.slice(0, vectors);
  const pick = (from: Columns): Columns => {
    const picked = columns(from.rows, first.length);
    for (const [to, { k }] of first.entries())
      picked.data.set(from.data.subarray(k * from.rows, (k + 1) * from.rows), to * from.rows);
    return picked;
  };
  return { u: pick(u), sigma: Float64Array.from(kept, ({ length }) => length), v: pick(v) };
}

/** Through bidiagonal form; null where the result does not stand up to a check. */
function byDivision(matrix: Columns, vectors: number, limit: (biggest: number) => number): Svd | null {
  const { rows, cols } = matrix;
  if (rows < cols) {
    const turned = byDivision(transpose(matrix), vectors, limit);
    return turned && { u: turned.v, sigma: turned.sigma, v: turned.u };
  }
  const tall = rows > cols ? qr(matrix) : null;
  const core = tall ? tall.r : columns(rows, cols, matrix.data.slice());
  const whole = dot(core.data, 0, core.data, 0, core.data.length);
  const { diagonal, above, q, p } = bidiagonalise(core);
  const parts = attempt(() => decomposeBidiagonal(diagonal, above, vectors));
  if (!parts) return null;
  const { u, sigma, v } = parts;
  const found = dot(sigma, 0, sigma, 0, sigma.length);
  if (!(Math.abs(found - whole) <= NORM_TOLERANCE * whole)) return null;
  // The reduction errs by ε times the whole, whatever the caller's floor.
  const biggest = largest(sigma);
  const floor = Math.max(limit(biggest), sigma.length * Number.EPSILON * biggest);
  const rank = sigma.filter((value) => value > floor).length;
  const first = (part: Columns): Columns => {
    const cols = Math.min(part.cols, rank);
    return columns(part.rows, cols, part.data.subarray(0, part.rows * cols));
  };
  const picked = { u: first(u), sigma: sigma.slice(0, rank), v: first(v) };
  applyReflectors(q, picked.u);
  applyReflectors(p, picked.v);
  return { u: tall ? applyQ(tall, picked.u) : picked.u, sigma: picked.sigma, v: picked.v };
}

/** Null where it does not converge: rotations may still. */
function attempt<Result>(work: () => Result): Result | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof MergeError && error.code === 'no-convergence') return null;
    throw error;
  }
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
