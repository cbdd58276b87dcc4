// Averages of factors, element by element: what the strategies share that do not average products.
import { MergeError } from '../errors.ts';
import { matrixReport } from '../spectrum.ts';
import { lowRankOf } from '../sum.ts';
import type { Factors } from '../types.ts';
import type { MatrixMerge, MergedMatrix } from './strategy.ts';

/**
 * Ā = Σ w·A and B̄ = Σ w·(s_i/s)·B at the largest rank, shorter factors padded with zeros. With scales inside B, Ā and s·B̄ do
 * not depend on the convention of any client. `weights` sum to 1. Throws MergeError 'non-finite'.
 */
export function averageFactors(updates: readonly Factors[], weights: readonly number[]): Factors {
  const rank = updates.reduce((largest, factors) => Math.max(largest, factors.rank), 0);
  const [{ out, in: inner, scale }] = updates as [Factors];
  const a = new Float64Array(rank * inner);
  const b = new Float64Array(out * rank);
  for (const [i, factors] of updates.entries()) {
    const weight = weights[i] ?? 0;
    const { a: ownA, b: ownB } = factors;
    for (let k = 0; k < ownA.length; k += 1) a[k] = (a[k] as number) + weight * (ownA[k] as number);
    const ofB = weight * (factors.scale / scale);
    for (let row = 0; row < out; row += 1) {
      for (let k = 0; k < factors.rank; k += 1) {
        const at = row * rank + k;
        b[at] = (b[at] as number) + ofB * (ownB[row * factors.rank + k] as number);
      }
    }
  }
  return { out, in: inner, rank, scale, a, b };
}

/** FedAvg of the factors of clients of one rank. Throws MergeError 'rank' for several. */
export function averageOfOneRank(strategy: string, merge: MatrixMerge): MergedMatrix<Factors> {
  const [factors, weights] = endsOf(merge);
  const ranks = [...new Set(factors.map(({ rank }) => rank))].sort((a, b) => a - b);
  if (ranks.length > 1) {
    throw new MergeError(
      'rank',
      `${strategy} averages factors of one rank, and ${merge.name ?? 'the matrix'} has ranks ${ranks.join(', ')}; choose zero-pad or flexlora.`,
    );
  }
  return mergedFactors(merge, averageFactors(factors, weights));
}

/** An average of factors as the next state, told by the spectrum of its product. */
export function mergedFactors(
  { updates, maxRank, name = 'the matrix' }: MatrixMerge,
  next: Factors,
): MergedMatrix<Factors> {
  if (next.rank > maxRank)
    throw new MergeError('rank', `The average of ${name} has rank ${next.rank}, and ${maxRank} is kept at most.`);
  return { next, report: matrixReport(lowRankOf(next, `the average of ${name}`), 0, updates) };
}

/** The updates' factors and shares. */
export const endsOf = ({ updates }: MatrixMerge): [factors: Factors[], weights: number[]] => [
  updates.map(({ end }) => end),
  updates.map(({ weight }) => weight),
];
