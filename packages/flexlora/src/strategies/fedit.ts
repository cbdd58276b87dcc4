// FedIT (Zhang et al., ICASSP 2024, arXiv 2305.05644): FedAvg of the factors, Ā = Σ w·A and B̄ = Σ w·B, all of one rank.
// Costs O((out + in)·r) and no decomposition. B̄·Ā is not Σ w·B·A: the cross terms B_i·A_j of different clients come in, and
// the result depends on the gauge of every client's factors.
import { MergeError } from '../errors.ts';
import type { Factors } from '../types.ts';
import { averageFactors, endsOf, mergedFactors } from './averages.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const fedit: Strategy<Factors> = {
  name: 'fedit',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  clips: false,
  mixedRanks: false,
  trains: 'both',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(fedit, merge);
    const [factors, weights] = endsOf(merge);
    const ranks = [...new Set(factors.map(({ rank }) => rank))].sort((a, b) => a - b);
    if (ranks.length > 1) {
      throw new MergeError(
        'rank',
        `fedit averages factors of one rank, and ${merge.name ?? 'the matrix'} has ranks ${ranks.join(', ')}; choose zero-pad or flexlora.`,
      );
    }
    return mergedFactors(merge, averageFactors(factors, weights));
  },
};
