// The first singular values and vectors of a large matrix by subspace iteration from a random start (Halko, Martinsson and
// Tropp, "Finding structure with randomness", 2011, algorithm 4.4). What it finds is checked against the matrix itself, so
// that a spectrum without decay is told, not guessed.
import { seededStream } from '../random.ts';
import { type Columns, columns, dot } from './columns.ts';
import { addProduct, transposedView, view } from './product.ts';
import { applyQ, qr } from './qr.ts';
import { type Svd, svd } from './svd.ts';

/** A matrix that is only ever multiplied: out = matrix · x or matrixᵀ · x, x of any number of columns. */
export interface Operator {
  readonly rows: number;
  readonly cols: number;
  times(x: Columns): Columns;
  transposeTimes(x: Columns): Columns;
}

export const operatorOf = (matrix: Columns): Operator => ({
  rows: matrix.rows,
  cols: matrix.cols,
  times(x) {
    const y = columns(matrix.rows, x.cols);
    addProduct(1, view(matrix), view(x), view(y));
    return y;
  },
  transposeTimes(x) {
    const y = columns(matrix.cols, x.cols);
    addProduct(1, transposedView(view(matrix)), view(x), view(y));
    return y;
  },
});

/** Directions beyond those wanted: they take what would else be missed. */
export const oversampling = (rank: number): number => Math.max(8, Math.ceil(rank / 2));
/** Passes over the matrix, each a product with it and one with its transpose. */
const MAX_PASSES = 24;
/** Passes after which the result is looked at. */
const CHECK_EVERY = 3;

const orthonormal = (x: Columns): Columns => {
  const factored = qr(x);
  const unit = columns(factored.size, factored.size);
  for (let k = 0; k < factored.size; k += 1) unit.data[k * factored.size + k] = 1;
  return applyQ(factored, unit);
};

/** Largest ‖M·v_k − σ_k·u_k‖ over the vectors of a decomposition whose ‖Mᵀ·u_k − σ_k·v_k‖ is 0 but for rounding. */
function worstResidual(matrix: Operator, { u, sigma, v }: Svd): number {
  const reached = matrix.times(v);
  let worst = 0;
  for (let k = 0; k < v.cols; k += 1) {
    const from = k * u.rows;
    for (let i = 0; i < u.rows; i += 1)
      reached.data[from + i] = (reached.data[from + i] as number) - (sigma[k] as number) * (u.data[from + i] as number);
    worst = Math.max(worst, Math.sqrt(dot(reached.data, from, reached.data, from, u.rows)));
  }
  return worst;
}

/**
 * The first `rank` singular values and vectors, each pair with a residual of at most `tolerance` · σ₁; null where 24
 * passes would not give that, as soon as their rate tells. Equal input and seed give equal bytes. Throws MergeError.
 */
export function randomisedSvd(
  matrix: Operator,
  { rank, tolerance, floor, seed }: { rank: number; tolerance: number; floor: number; seed: string },
): { svd: Svd; residual: number } | null {
  const width = Math.min(matrix.rows, matrix.cols, rank + oversampling(rank));
  const draw = seededStream('randomised', seed);
  const start = columns(matrix.cols, width);
  for (let i = 0; i < start.data.length; i += 1) start.data[i] = draw();
  let before = Number.POSITIVE_INFINITY;
  let basis = orthonormal(matrix.times(start));
  for (let pass = 1; pass <= MAX_PASSES; pass += 1) {
    const projected = matrix.transposeTimes(basis);
    if (pass % CHECK_EVERY === 0) {
      // M ≈ Q·(Mᵀ·Q)ᵀ.
      const { u, sigma, v } = svd(projected, { floor, vectors: rank });
      const left = columns(matrix.rows, v.cols);
      addProduct(1, view(basis), view(v), view(left));
      const found = { u: left, sigma: sigma.slice(0, rank), v: u };
      const residual = worstResidual(matrix, found);
      const wanted = tolerance * (sigma[0] ?? 0);
      if (residual <= wanted) return { svd: found, residual };
      const rate = residual / before;
      if (residual * rate ** ((MAX_PASSES - pass) / CHECK_EVERY) > wanted) return null;
      before = residual;
    }
    basis = orthonormal(matrix.times(orthonormal(projected)));
  }
  return null;
}
