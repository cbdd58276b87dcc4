// FedAvg of factors padded with zeros to the largest rank, the usual baseline for mixed ranks (Cho et al., EMNLP 2024, arXiv
// 2401.06432, §3.1): clients get the first r rows and columns back. Costs O((out + in)·r_max). Cross terms as in fedit; and
// rows that few clients have are averaged with the zeros of all others, in A and in B, so that they fade as p².

import type { Factors } from '../types.ts';
import { averageFactors, endsOf, mergedFactors } from './averages.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const zeroPad: Strategy<Factors> = {
  name: 'zero-pad',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  clips: false,
  mixedRanks: true,
  trains: 'both',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(zeroPad, merge);
    return mergedFactors(merge, averageFactors(...endsOf(merge)));
  },
};
