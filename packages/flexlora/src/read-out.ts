// Factors for a client out of the merged update. All of Σ goes into B: with √Σ on both sides a direction of σ = 0 would
// have zero in both factors and never train again.
import { MergeError } from './errors.ts';
import { addScaled, dot } from './linalg/columns.ts';
import { seededStream } from './random.ts';
import { type Factors, isLowRank, type LowRank, type Side, type State, zeroUpdate } from './types.ts';

/** Factors in float32, ready to be served or written. */
export interface ServedFactors extends Factors {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

export interface ReadOut {
  readonly rank: number;
  /** s of ΔW = s·B·A, as the client will apply it. */
  readonly scale: number;
  /** Seed of the rows that have no direction yet: run seed and tensor name. */
  readonly seed: string;
}

/** What is left of a random row below this share of it is rounding: the row lay within the others. */
const LEAST_REMAINDER = 1e-3;

/** Makes x orthogonal to the first `count` rows of `rows` (each of x's length) and returns its length. Twice is enough (Kahan). */
function orthogonalise(x: Float64Array, rows: Float64Array, count: number): number {
  const n = x.length;
  for (let pass = 0; pass < 2; pass += 1)
    for (let k = 0; k < count; k += 1) addScaled(-dot(rows, k * n, x, 0, n), rows, k * n, x, 0, n);
  return Math.sqrt(dot(x, 0, x, 0, n));
}

function checkReadOut({ rank, scale }: ReadOut): void {
  if (!Number.isInteger(rank) || rank < 1)
    throw new MergeError('rank', `Factors cannot have rank ${rank}; ask for a positive whole number.`);
  if (!Number.isFinite(scale) || scale === 0)
    throw new MergeError('non-finite', `Factors cannot have scale ${scale}; α must be a positive number.`);
}

function checkServed(b: Float32Array): void {
  for (const value of b) {
    if (!Number.isFinite(value))
      throw new MergeError('non-finite', 'The merged update is too large for float32; lower the learning rate.');
  }
}

/**
 * B = U_r·Σ_r/s and A = V_rᵀ at rank r: the best approximation of the update at that rank. Where σ = 0 or the rank goes
 * beyond the update's, B = 0 and A has seeded random unit rows orthogonal to all others, so that every direction trains.
 * Nested: rank r is the first r rows and columns of any larger read-out with the same seed. Beyond min(out, in) both are
 * zero, which pads an export. Throws MergeError 'rank' or 'non-finite' (beyond float32).
 */
export function readOut(update: LowRank, { rank, scale, seed }: ReadOut): ServedFactors {
  const { out, in: columns, u, sigma, v } = update;
  checkReadOut({ rank, scale, seed });
  const known = sigma.reduce((count, value) => (value > 0 ? count + 1 : count), 0);
  const directions = Math.min(rank, out, columns);
  const rows = new Float64Array(Math.max(known, directions) * columns);
  rows.set(v.subarray(0, known * columns));
  for (let k = known; k < directions; k += 1) {
    const draw = seededStream(seed, k);
    const row = rows.subarray(k * columns, (k + 1) * columns);
    let length = 0;
    do {
      for (let i = 0; i < columns; i += 1) row[i] = draw();
      const drawn = Math.sqrt(dot(row, 0, row, 0, columns));
      length = orthogonalise(row, rows, k);
      if (length < LEAST_REMAINDER * drawn) length = 0;
    } while (length === 0);
    for (let i = 0; i < columns; i += 1) row[i] = (row[i] as number) / length;
  }
  const a = new Float32Array(rank * columns);
  a.set(rows.subarray(0, directions * columns));
  const b = new Float32Array(out * rank);
  for (let k = 0; k < Math.min(known, directions); k += 1) {
    const factor = (sigma[k] as number) / scale;
    for (let i = 0; i < out; i += 1) b[i * rank + k] = factor * (u[k * out + i] as number);
  }
  checkServed(b);
  return { out, in: columns, rank, scale, a, b };
}

/** The first rows of A and columns of B; beyond them seeded random unit rows in A and zeros in B, and zeros as in {@link readOut}. */
function leadingFactors(factors: Factors, { rank, scale, seed }: ReadOut): ServedFactors {
  checkReadOut({ rank, scale, seed });
  const { out, in: inner } = factors;
  const known = Math.min(rank, factors.rank);
  const a = new Float32Array(rank * inner);
  a.set(factors.a.subarray(0, known * inner));
  for (let k = known; k < Math.min(rank, out, inner); k += 1) {
    const draw = seededStream(seed, k);
    const row = Float64Array.from({ length: inner }, draw);
    const length = Math.sqrt(dot(row, 0, row, 0, inner));
    for (let i = 0; i < inner; i += 1) a[k * inner + i] = (row[i] as number) / length;
  }
  const b = new Float32Array(out * rank);
  const factor = factors.scale / scale;
  for (let i = 0; i < out; i += 1)
    for (let k = 0; k < known; k += 1) b[i * rank + k] = factor * (factors.b[i * factors.rank + k] as number);
  checkServed(b);
  return { out, in: inner, rank, scale, a, b };
}

/**
 * What a client of this rank starts from: of a decomposition the best approximation, of averaged factors the first rows and
 * columns. Throws MergeError 'rank' or 'non-finite'.
 */
export const readOutState = (state: State, spec: ReadOut): ServedFactors =>
  isLowRank(state) ? readOut(state, spec) : leadingFactors(state, spec);

/** What a client of this rank trains from: {@link readOutState}, or fresh factors where it holds the whole state beside them. */
export const readOutStart = (side: Side, state: State, spec: ReadOut): ServedFactors =>
  readOutState(side === 'whole' ? zeroUpdate(state) : state, spec);

/** Rank of what a client of rank `rank` holds frozen of a state of rank `ofState`. */
export const sideRank = (side: Side, ofState: number, rank: number): number =>
  side === 'none' ? 0 : side === 'whole' ? ofState : Math.max(0, ofState - rank);

/**
 * What a client of rank `rank` holds frozen beside what it trains, at scale 1: B = UΣ and A = Vᵀ of the directions that its
 * start lacks. Null where there are none. Throws MergeError 'strategy' for averaged factors, which have no tail, and
 * 'non-finite'.
 */
export function readOutSide(side: Side, state: State, rank: number): ServedFactors | null {
  if (side === 'none') return null;
  if (!isLowRank(state))
    throw new MergeError(
      'strategy',
      'Averaged factors have no tail; only a decomposition can be served beside others.',
    );
  const { out, in: inner, u, sigma, v } = state;
  const width = sideRank(side, state.rank, rank);
  if (width === 0) return null;
  const first = state.rank - width;
  const a = Float32Array.from(v.subarray(first * inner));
  const b = new Float32Array(out * width);
  for (let k = 0; k < width; k += 1) {
    const factor = sigma[first + k] as number;
    for (let i = 0; i < out; i += 1) b[i * width + k] = factor * (u[(first + k) * out + i] as number);
  }
  checkServed(b);
  return { out, in: inner, rank: width, scale: 1, a, b };
}
