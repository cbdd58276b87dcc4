// Weighted sums of low-rank updates without ever forming them: stack the factors, QR both stacks, decompose the small core.
// Exact for every sum of ranks; a stack at least as wide as its matrix is its own core.
import { MergeError } from './errors.ts';
import { addScaled, type Columns, columns, dot } from './linalg/columns.ts';
import { applyQ, type Qr, qr } from './linalg/qr.ts';
import { svd } from './linalg/svd.ts';
import { checkUpdate, type Factors, isLowRank, type LowRank, type Shape, zeroUpdate } from './types.ts';

export interface Term {
  /** Any finite number; negative to subtract. */
  readonly weight: number;
  readonly factors: Factors | LowRank;
  /** What errors call it, such as the client or the file it came from. */
  readonly name?: string;
}

/** Σ over columns j of left_j · right_jᵀ = Σ weight · update. */
export interface Stack extends Shape {
  /** [out, width] */
  readonly left: Columns;
  /** [in, width] */
  readonly right: Columns;
  /** Term of each column. */
  readonly owner: Int32Array;
}

function isZero(data: Float64Array, from: number, count: number): boolean {
  for (let i = from; i < from + count; i += 1) if (data[i] !== 0) return false;
  return true;
}

/**
 * The factors of all terms side by side in float64, weight and scale in the left ones. Columns that contribute exactly
 * nothing, such as the B = 0 of untrained directions, are left out. Throws MergeError 'weights', 'shape', 'rank' or
 * 'non-finite'.
 */
export function stackTerms(terms: readonly Term[]): Stack {
  const shape = terms[0]?.factors;
  if (!shape) throw new MergeError('weights', 'There is no update to merge.');
  const { out, in: inner } = shape;
  const total = terms.reduce((sum, { factors }) => sum + factors.rank, 0);
  const left = new Float64Array(out * total);
  const right = new Float64Array(inner * total);
  const owner = new Int32Array(total);
  let width = 0;
  for (const [t, { weight, factors, name = `update ${t + 1}` }] of terms.entries()) {
    if (!Number.isFinite(weight)) throw new MergeError('weights', `The weight of ${name} is ${weight}.`);
    checkUpdate(factors, shape, name);
    for (let k = 0; k < factors.rank; k += 1) {
      const l = width * out;
      const r = width * inner;
      if (isLowRank(factors)) {
        const factor = weight * (factors.sigma[k] as number);
        for (let i = 0; i < out; i += 1) left[l + i] = factor * (factors.u[k * out + i] as number);
        right.set(factors.v.subarray(k * inner, (k + 1) * inner), r);
      } else {
        const factor = weight * factors.scale;
        for (let i = 0; i < out; i += 1) left[l + i] = factor * (factors.b[i * factors.rank + k] as number);
        right.set(factors.a.subarray(k * inner, (k + 1) * inner), r);
      }
      if (isZero(left, l, out) || isZero(right, r, inner)) continue;
      owner[width] = t;
      width += 1;
    }
  }
  return {
    out,
    in: inner,
    left: columns(out, width, left.subarray(0, width * out)),
    right: columns(inner, width, right.subarray(0, width * inner)),
    owner: owner.subarray(0, width),
  };
}

/** A stack as Q · R; null stands for Q = 1 where the stack is already no taller than wide. */
function compress(stack: Columns): { q: Qr | null; r: Columns } {
  if (stack.cols >= stack.rows) return { q: null, r: stack };
  const q = qr(stack);
  return { q, r: q.r };
}

/** left · rightᵀ, [left.rows, right.rows]. */
function outerProduct(left: Columns, right: Columns): Columns {
  const core = columns(left.rows, right.rows);
  for (let k = 0; k < left.cols; k += 1) {
    for (let j = 0; j < right.rows; j += 1) {
      const factor = right.data[k * right.rows + j] as number;
      if (factor !== 0) addScaled(factor, left.data, k * left.rows, core.data, j * left.rows, left.rows);
    }
  }
  return core;
}

/** Bound of the rounding noise in the singular values of a stack's product: Householder QR errs column by column. */
function noiseFloor({ left, right }: Stack): number {
  let sum = 0;
  for (let k = 0; k < left.cols; k += 1) {
    const l = dot(left.data, k * left.rows, left.data, k * left.rows, left.rows);
    const r = dot(right.data, k * right.rows, right.data, k * right.rows, right.rows);
    sum += Math.sqrt(l) * Math.sqrt(r);
  }
  return 4 * Number.EPSILON * sum;
}

/** Square root of Σ values², without the first `from`. */
const normFrom = (values: Float64Array, from: number): number =>
  Math.sqrt(dot(values, from, values, from, Math.max(0, values.length - from)));

/**
 * Σ weight · update as a singular value decomposition of rank `maxRank` at most. `discarded` is the Frobenius norm of what
 * that limit cut off. Singular values below the rounding noise of the sum are not there. Throws MergeError.
 */
export function sumOfProducts(
  terms: readonly Term[],
  maxRank = Number.POSITIVE_INFINITY,
): { value: LowRank; discarded: number } {
  if (!(maxRank >= 1)) throw new MergeError('rank', `An update cannot be kept at rank ${maxRank}.`);
  const stack = stackTerms(terms);
  if (stack.left.cols === 0) return { value: zeroUpdate(stack), discarded: 0 };
  const left = compress(stack.left);
  const right = compress(stack.right);
  const { u, sigma, v } = svd(outerProduct(left.r, right.r), noiseFloor(stack));
  const rank = Math.min(sigma.length, maxRank);
  const first = (part: Columns): Columns => columns(part.rows, rank, part.data.subarray(0, part.rows * rank));
  const expand = (q: Qr | null, part: Columns): Float64Array => (q ? applyQ(q, part).data : part.data.slice());
  return {
    value: {
      out: stack.out,
      in: stack.in,
      rank,
      u: expand(left.q, first(u)),
      sigma: sigma.slice(0, rank),
      v: expand(right.q, first(v)),
    },
    discarded: normFrom(sigma, rank),
  };
}

/** The singular value decomposition of one pair of factors. */
export const lowRankOf = (factors: Factors, name?: string): LowRank =>
  sumOfProducts([{ weight: 1, factors, ...(name === undefined ? {} : { name }) }]).value;
