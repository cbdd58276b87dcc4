// The two forms of an update: LoRA factors as clients hold them, and the singular value decomposition the server keeps.
import { MergeError } from './errors.ts';

/**
 * LoRA factors, row-major: ΔW = scale · B · A, [out, in]. `LoraFactors` of @weft/formats is one. `a` and `b` may be accessors
 * that read a file, so that a thousand updates are never in memory at once: take each once, before any loop ({@link inHand}),
 * and let go of it.
 */
export interface Factors {
  readonly out: number;
  readonly in: number;
  readonly rank: number;
  readonly scale: number;
  /** [rank, in] */
  readonly a: Float32Array | Float64Array;
  /** [out, rank] */
  readonly b: Float32Array | Float64Array;
}

/** M = U · diag(σ) · Vᵀ, [out, in], with orthonormal columns in U and V and σ descending and positive. Rank 0 is M = 0. */
export interface LowRank {
  readonly out: number;
  readonly in: number;
  readonly rank: number;
  /** Columns of U one after another: row-major Uᵀ, [rank, out]. */
  readonly u: Float64Array;
  /** [rank] */
  readonly sigma: Float64Array;
  /** Columns of V one after another: row-major Vᵀ, [rank, in]. */
  readonly v: Float64Array;
}

/** The same factors with both arrays read, once. */
export const inHand = ({ out, in: inner, rank, scale, a, b }: Factors): Factors => ({
  out,
  in: inner,
  rank,
  scale,
  a,
  b,
});

/** What a server keeps between rounds: a decomposition, or factors where a strategy averages these. */
export type State = LowRank | Factors;

/**
 * What a client holds frozen beside the factors it trains: nothing; the tail, what the best approximation at its rank lacks
 * of the state; or the whole state, while its own factors start anew.
 */
export type Side = 'none' | 'tail' | 'whole';

export interface Shape {
  readonly out: number;
  readonly in: number;
}

export const isLowRank = (value: Factors | LowRank): value is LowRank => 'sigma' in value;

/** The update that changes nothing. */
export const zeroUpdate = ({ out, in: columns }: Shape): LowRank => ({
  out,
  in: columns,
  rank: 0,
  u: new Float64Array(0),
  sigma: new Float64Array(0),
  v: new Float64Array(0),
});

/** The rank the server keeps of a matrix: K = min(out, in, 4 · maxRank), `maxRank` the largest a client may be granted. */
export const storedRank = ({ out, in: columns }: Shape, maxRank: number): number => Math.min(out, columns, 4 * maxRank);

const isSize = (value: number): boolean => Number.isInteger(value) && value > 0;

function checkFinite(values: Float32Array | Float64Array, what: string): void {
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i] ?? Number.NaN;
    if (!Number.isFinite(value))
      throw new MergeError('non-finite', `${what} holds ${value} at element ${i}; leave this update out of the merge.`);
  }
}

/** Throws MergeError 'shape' unless `value` is an update of a matrix of this shape. `name` is what the message calls it. */
export function checkShape({ out, in: columns }: Shape, shape: Shape, name: string): void {
  if (isSize(out) && isSize(columns) && out === shape.out && columns === shape.in) return;
  throw new MergeError(
    'shape',
    `${name} is [${out}, ${columns}] where [${shape.out}, ${shape.in}] is merged; it belongs to another model.`,
  );
}

/**
 * Throws MergeError 'shape', 'rank' or 'non-finite' unless `value` is a well-formed update of a matrix of this shape.
 * `name` is what the message calls it.
 */
export function checkUpdate(value: Factors | LowRank, shape: Shape, name: string): void {
  const { out, in: columns, rank } = value;
  checkShape(value, shape, name);
  const low = isLowRank(value);
  if (!Number.isInteger(rank) || rank < (low ? 0 : 1))
    throw new MergeError('rank', `${name} has rank ${rank}; it must be a positive whole number.`);
  const [left, right] = low ? [value.u, value.v] : [value.b, value.a];
  if (left.length !== out * rank || right.length !== rank * columns || (low && value.sigma.length !== rank)) {
    throw new MergeError(
      'rank',
      `${name} claims rank ${rank}, but its factors have ${left.length} and ${right.length} elements instead of ${out * rank} and ${rank * columns}.`,
    );
  }
  checkFinite(left, `${name}, factor ${low ? 'U' : 'B'}`);
  checkFinite(right, `${name}, factor ${low ? 'V' : 'A'}`);
  if (low) checkFinite(value.sigma, `${name}, σ`);
  else if (!Number.isFinite(value.scale)) throw new MergeError('non-finite', `${name} has scale ${value.scale}.`);
}
