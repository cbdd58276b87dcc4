// SLoRA (Babakniya et al., 2023, arXiv 2308.06522): rounds of sparse fine-tuning first, S = Σ w·S_i at random places that all
// clients share, exact; then LoRA from the best approximation of S at its rank, FedAvg of factors as in fedit. A sparse merge
// costs O(out·k) for k elements a row, and its decomposition that of a dense matrix. Random places have a flat spectrum, so
// the start keeps little of S (`discardedTail`, `truncationError`); afterwards the weaknesses of fedit, one rank included.
import { MergeError } from '../errors.ts';
import { columns, dot } from '../linalg/columns.ts';
import { type MatrixReport, matrixReport } from '../spectrum.ts';
import { decompose } from '../sum.ts';
import type { Factors, LowRank, Shape } from '../types.ts';
import { averageOfOneRank } from './averages.ts';
import { checkClipFactor, checkMerge, checkShares, type Strategy } from './strategy.ts';

export const slora: Strategy<Factors> = {
  name: 'slora',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  mixedRanks: false,
  trains: 'both',
  clips: false,
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(slora, merge);
    return averageOfOneRank('slora', merge);
  },
};

/** What one client sends of a sparse matrix. */
export interface SparseValues {
  /** Share of the merge; the shares of all updates sum to 1. */
  readonly weight: number;
  /** What its change is multiplied by, in (0, 1]; 1 unless said. */
  readonly clip?: number;
  /** [out, perRow], row by row. May be an accessor that reads a file: it is asked once, one client after the other. */
  readonly values: Float32Array | Float64Array;
  /** What errors call the client. */
  readonly name?: string;
}

export interface SparseMerge extends Shape {
  /** Column of every element, row by row: [out, perRow]. The same for all clients. */
  readonly columns: Uint32Array;
  /** What all clients started from; null for zeros. */
  readonly start: Float64Array | null;
  readonly updates: readonly SparseValues[];
  /** Rank of the decomposition at most. */
  readonly maxRank: number;
  /** What errors call the matrix; seeds the decomposition. */
  readonly name?: string;
}

export interface SparseMerged {
  /** Σ w·S_i: what the next sparse round starts from. */
  readonly values: Float64Array;
  /** Its decomposition: what LoRA starts from, and what a read-out of this state is made of. */
  readonly next: LowRank;
  /** Nobody has a rank: `p` and `truncationError` are empty. */
  readonly report: MatrixReport;
}

/** One merge of a sparse round. Throws MergeError 'weights', 'shape', 'non-finite' or 'no-convergence'. */
export function mergeSparse(merge: SparseMerge): SparseMerged {
  const { out, in: inner, columns: places, start, updates, maxRank, name = 'the matrix' } = merge;
  checkShares(updates, name);
  const count = places.length;
  const values = new Float64Array(count);
  for (const [i, update] of updates.entries()) {
    const called = `${update.name ?? `update ${i + 1}`} of ${name}`;
    const { weight, clip = 1, values: own } = update;
    checkClipFactor(clip, called);
    if (own.length !== count)
      throw new MergeError('shape', `${called} has ${own.length} elements where ${count} are merged.`);
    for (let k = 0; k < count; k += 1) {
      const value = own[k] as number;
      if (!Number.isFinite(value)) {
        throw new MergeError(
          'non-finite',
          `${called} holds ${value} at element ${k}; leave this update out of the merge.`,
        );
      }
      const from = start?.[k] ?? 0;
      values[k] = (values[k] as number) + weight * (clip === 1 ? value : from + clip * (value - from));
    }
  }
  const dense = columns(out, inner);
  const perRow = count / out;
  for (let k = 0; k < count; k += 1)
    dense.data[(places[k] as number) * out + Math.floor(k / perRow)] = values[k] as number;
  const norm = Math.sqrt(dot(values, 0, values, 0, count));
  const floor = Math.max(out, inner) * Number.EPSILON * norm;
  const { value: next, discarded } = decompose(dense, { maxRank, seed: name, floor });
  return { values, next, report: matrixReport(next, discarded, []) };
}
