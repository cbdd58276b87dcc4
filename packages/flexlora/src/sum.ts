// Weighted sums of low-rank updates as singular value decompositions, one update after the other. As long as the stack of
// factors is narrower than the matrix, the matrix is never formed: QR both stacks, decompose the small core. Beyond that
// the sum itself is the smaller thing to keep.
import { MergeError } from './errors.ts';
import { GrowingSum } from './growing-sum.ts';
import { addScaled, type Columns, columns, dot } from './linalg/columns.ts';
import { addProduct, transposedView, view } from './linalg/product.ts';
import { applyQ, type Qr, qr } from './linalg/qr.ts';
import { operatorOf, oversampling, randomisedSvd } from './linalg/randomised.ts';
import { fixSigns, type Svd, svd } from './linalg/svd.ts';
import { joined, nuclearBound, stackOf, type Term } from './stack.ts';
import { type Factors, type LowRank, type Shape, zeroUpdate } from './types.ts';

/**
 * How a sum is computed. `stacked`: QR of both stacks of factors, exact, memory (out + in) · Σr. `dense`: the sum itself,
 * exact, memory out · in. `randomised`: the first directions of the dense sum, each to 1e-9 · σ₁, or dense where its spectrum
 * does not allow that.
 */
export type Route = 'stacked' | 'dense' | 'randomised';

export interface SumOptions {
  /** Rank of the result at most; all of it unless said. */
  readonly maxRank?: number;
  /** Forces a route; else Σr and `maxRank` choose. */
  readonly route?: Route;
  /** Of the random start of `randomised`: run, round and matrix. */
  readonly seed?: string;
}

export interface Sum {
  readonly value: LowRank;
  /** Frobenius norm of what `maxRank` cut off; of a randomised sum ‖Σ − value‖, as measured. */
  readonly discarded: number;
  /** The one that gave the result. */
  readonly route: Route;
}

/** A random subspace pays where it is narrower than this share of the smaller side. */
const RANDOMISED_SHARE = 1 / 8;
/** Residual of a singular vector, relative to σ₁. */
const RANDOMISED_TOLERANCE = 1e-9;
/** Columns of the sum whose remainder is measured at once. */
const REMAINDER_COLUMNS = 128;

/**
 * ‖M − U·diag(σ)·Vᵀ‖, measured: ‖M‖² − Σσ² would lose whatever is below √ε·‖M‖, and what the vectors themselves err by. Some
 * columns at a time, so that there is no second M.
 */
function remainder(matrix: Columns, { u, sigma, v }: Svd): number {
  const { rows, cols } = matrix;
  const scaled = columns(rows, u.cols);
  for (let k = 0; k < u.cols; k += 1) addScaled(sigma[k] as number, u.data, k * rows, scaled.data, k * rows, rows);
  let squares = 0;
  for (let left = 0; left < cols; left += REMAINDER_COLUMNS) {
    const width = Math.min(REMAINDER_COLUMNS, cols - left);
    const block = columns(rows, width, matrix.data.slice(left * rows, (left + width) * rows));
    addProduct(-1, view(scaled), transposedView(view(v, left, 0, width)), view(block));
    squares += dot(block.data, 0, block.data, 0, block.data.length);
  }
  return Math.sqrt(squares);
}

/** A stack, which it may overwrite, as Q · R; null stands for Q = 1 where the stack is already no taller than wide. */
function compress(stack: Columns): { q: Qr | null; r: Columns } {
  if (stack.cols >= stack.rows) return { q: null, r: stack };
  const q = qr(stack, { inPlace: true });
  return { q, r: q.r };
}

/** Σ weight · update, update by update, so that none has to be kept by the caller. */
export class UpdateSum {
  readonly #shape: Shape;
  readonly #route: Route | undefined;
  readonly #maxRank: number;
  readonly #seed: string;
  readonly #sum: GrowingSum;
  #bound = 0;
  #terms = 0;

  /** Throws MergeError 'rank'. */
  constructor({ out, in: inner }: Shape, { maxRank = Number.POSITIVE_INFINITY, route, seed = '' }: SumOptions = {}) {
    if (!(maxRank >= 1)) throw new MergeError('rank', `An update cannot be kept at rank ${maxRank}.`);
    this.#shape = { out, in: inner };
    this.#route = route;
    this.#maxRank = maxRank;
    this.#seed = seed;
    this.#sum = new GrowingSum(this.#shape, route && (route === 'stacked' ? 'stacks' : 'dense'));
  }

  /** Throws MergeError 'weights', 'shape', 'rank' or 'non-finite'; the sum is then as it was. */
  add(term: Term): void {
    this.#terms += 1;
    const stack = stackOf({ name: `update ${this.#terms}`, ...term }, this.#shape);
    this.#bound += nuclearBound(stack);
    this.#sum.add(stack);
  }

  /** The sum so far; more may be added. Throws MergeError 'no-convergence' or 'non-finite'. */
  finish(): Sum {
    if (this.#sum.width === 0) return { value: zeroUpdate(this.#shape), discarded: 0, route: this.#route ?? 'stacked' };
    // Householder QR and sums of products err column by column.
    const floor = 4 * Number.EPSILON * this.#bound;
    if (!this.#sum.dense) return this.#finishStacked(floor);
    const options = { maxRank: this.#maxRank, seed: this.#seed, floor };
    return decompose(this.#sum.dense, { ...options, ...(this.#route === undefined ? {} : { route: this.#route }) });
  }

  #finishStacked(floor: number): Sum {
    const stack = joined(this.#sum.stacks, this.#shape);
    const left = compress(stack.left);
    const right = compress(stack.right);
    const core = columns(left.r.rows, right.r.rows);
    addProduct(1, view(left.r), transposedView(view(right.r)), view(core));
    const { u, sigma, v } = svd(core, { floor, vectors: this.#maxRank });
    const expand = (q: Qr | null, part: Columns): Columns => (q ? applyQ(q, part) : part);
    const parts = { u: expand(left.q, u), sigma, v: expand(right.q, v) };
    return { ...truncated(this.#shape, parts), route: 'stacked' };
  }
}

/**
 * The decomposition of a matrix that is there as a whole. `floor`: what of its singular values is rounding noise. Throws
 * MergeError 'no-convergence' or 'non-finite'.
 */
export function decompose(
  dense: Columns,
  { maxRank = Number.POSITIVE_INFINITY, route, seed = '', floor }: SumOptions & { readonly floor: number },
): Sum {
  const { rows: out, cols: inner } = dense;
  const subspace = maxRank + oversampling(maxRank);
  const small = subspace <= RANDOMISED_SHARE * Math.min(out, inner);
  const random = route === undefined ? small : route === 'randomised';
  if (random && Number.isFinite(maxRank)) {
    const found = randomisedSvd(operatorOf(dense), { rank: maxRank, tolerance: RANDOMISED_TOLERANCE, floor, seed });
    if (found) {
      const { value } = truncated({ out, in: inner }, found.svd);
      const rest = remainder(dense, found.svd);
      // Below the rounding of the sum there is nothing.
      const discarded = rest > floor ? rest : 0;
      return { value, discarded, route: 'randomised' };
    }
  }
  return { ...truncated({ out, in: inner }, svd(dense, { floor, vectors: maxRank })), route: 'dense' };
}

function truncated(shape: Shape, { u, sigma, v }: Svd): Omit<Sum, 'route'> {
  const rank = u.cols;
  const tail = dot(sigma, rank, sigma, rank, sigma.length - rank);
  // Of the whole vectors: those of a core have signs of their own, and every route must give the same.
  fixSigns(u, v);
  return {
    value: { ...shape, rank, u: u.data, sigma: sigma.slice(0, rank), v: v.data },
    discarded: Math.sqrt(tail),
  };
}

/**
 * Σ weight · update. Singular values below the rounding noise of the sum are not there. The terms are read one after the
 * other and once. Throws MergeError.
 */
export function sumOfProducts(terms: Iterable<Term>, options: SumOptions = {}): Sum {
  let sum: UpdateSum | null = null;
  for (const term of terms) {
    sum ??= new UpdateSum(term.factors, options);
    sum.add(term);
  }
  if (!sum) throw new MergeError('weights', 'There is no update to merge.');
  return sum.finish();
}

/** The singular value decomposition of one pair of factors. */
export const lowRankOf = (factors: Factors, name?: string): LowRank =>
  sumOfProducts([{ weight: 1, factors, ...(name === undefined ? {} : { name }) }]).value;
