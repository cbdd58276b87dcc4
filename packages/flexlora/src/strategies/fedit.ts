// FedIT (Zhang et al., ICASSP 2024, arXiv 2305.05644): FedAvg of the factors, Ā = Σ w·A and B̄ = Σ w·B, all of one rank.
// Costs O((out + in)·r) and no decomposition. B̄·Ā is not Σ w·B·A: the cross terms B_i·A_j of different clients come in, and
// the result depends on the gauge of every client's factors.
import type { Factors } from '../types.ts';
import { averageOfOneRank } from './averages.ts';
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
    return averageOfOneRank('fedit', merge);
  },
};
