// The factors of many updates side by side: Σ weight · update as one product of two tall matrices.
import { MergeError } from './errors.ts';
import { type Columns, columns, dot } from './linalg/columns.ts';
import { addProduct, transposedView, view } from './linalg/product.ts';
import { checkUpdate, type Factors, inHand, isLowRank, type LowRank, type Shape } from './types.ts';

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
}

function isZero(data: Float64Array, from: number, count: number): boolean {
  for (let i = from; i < from + count; i += 1) if (data[i] !== 0) return false;
  return true;
}

/**
 * The factors of one term in float64, weight and scale in the left ones. Columns that contribute exactly nothing, such as
 * the B = 0 of untrained directions, are left out. Throws MergeError 'weights', 'shape', 'rank' or 'non-finite'.
 */
export function stackOf({ weight, factors: given, name = 'the update' }: Term, shape: Shape): Stack {
  if (!Number.isFinite(weight)) throw new MergeError('weights', `The weight of ${name} is ${weight}.`);
  const factors = isLowRank(given) ? given : inHand(given);
  checkUpdate(factors, shape, name);
  const { out, in: inner, rank } = factors;
  const left = new Float64Array(out * rank);
  const right = new Float64Array(inner * rank);
  let width = 0;
  for (let k = 0; k < rank; k += 1) {
    const l = width * out;
    const r = width * inner;
    if (isLowRank(factors)) {
      const factor = weight * (factors.sigma[k] as number);
      for (let i = 0; i < out; i += 1) left[l + i] = factor * (factors.u[k * out + i] as number);
      right.set(factors.v.subarray(k * inner, (k + 1) * inner), r);
    } else {
      const factor = weight * factors.scale;
      for (let i = 0; i < out; i += 1) left[l + i] = factor * (factors.b[i * rank + k] as number);
      right.set(factors.a.subarray(k * inner, (k + 1) * inner), r);
    }
    if (!isZero(left, l, out) && !isZero(right, r, inner)) width += 1;
  }
  return {
    out,
    in: inner,
    left: columns(out, width, left.subarray(0, width * out)),
    right: columns(inner, width, right.subarray(0, width * inner)),
  };
}

/** Stacks side by side. */
export function joined(stacks: readonly Stack[], { out, in: inner }: Shape): Stack {
  const width = stacks.reduce((sum, { left }) => sum + left.cols, 0);
  const left = columns(out, width);
  const right = columns(inner, width);
  let at = 0;
  for (const stack of stacks) {
    left.data.set(stack.left.data, at * out);
    right.data.set(stack.right.data, at * inner);
    at += stack.left.cols;
  }
  return { out, in: inner, left, right };
}

/** The factors of all terms side by side. Throws MergeError 'weights', 'shape', 'rank' or 'non-finite'. */
export function stackTerms(terms: readonly Term[]): Stack {
  const shape = terms[0]?.factors;
  if (!shape) throw new MergeError('weights', 'There is no update to merge.');
  return joined(
    terms.map((term, t) => stackOf({ name: `update ${t + 1}`, ...term }, shape)),
    shape,
  );
}

/** Frobenius inner product of two products of stacks: Σ (LᵀL') ∘ (RᵀR'), never forming either. */
export function innerProduct(a: Stack, b: Stack): number {
  const lefts = columns(a.left.cols, b.left.cols);
  const rights = columns(a.left.cols, b.left.cols);
  addProduct(1, transposedView(view(a.left)), view(b.left), view(lefts));
  addProduct(1, transposedView(view(a.right)), view(b.right), view(rights));
  return dot(lefts.data, 0, rights.data, 0, lefts.data.length);
}

/** Σ ‖l_j‖·‖r_j‖: a bound of the singular values of their product, and the measure of its rounding. */
export function nuclearBound({ left, right }: Stack): number {
  let sum = 0;
  for (let k = 0; k < left.cols; k += 1) {
    const l = dot(left.data, k * left.rows, left.data, k * left.rows, left.rows);
    const r = dot(right.data, k * right.rows, right.data, k * right.rows, right.rows);
    sum += Math.sqrt(l) * Math.sqrt(r);
  }
  return sum;
}
