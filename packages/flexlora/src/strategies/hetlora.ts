// HetLoRA's aggregation (Cho et al., EMNLP 2024, arXiv 2401.06432, §3.3): zero-padded factors averaged with shares in
// proportion to ‖s·B·A‖ of each client instead of its number of tokens. Costs one Gram matrix of each client more than
// zero-pad. A client with large factors, for whatever reason, counts most; cross terms and fading rows as in zero-pad.
// Clients of a run prune their ranks while they train (§3.2: trainer's lora/pruning.ts); the merge takes what ranks there are.
import { normOfSum } from '../spectrum.ts';
import type { Factors } from '../types.ts';
import { averageFactors, endsOf, mergedFactors } from './averages.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const hetlora: Strategy<Factors> = {
  name: 'hetlora',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  clips: false,
  mixedRanks: true,
  trains: 'both',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(hetlora, merge);
    const [factors, weights] = endsOf(merge);
    // Who has no weight at all takes no part, however large its factors are.
    const norms = factors.map((each, i) => (weights[i] === 0 ? 0 : normOfSum([{ weight: 1, factors: each }])));
    const total = norms.reduce((sum, norm) => sum + norm, 0);
    // Before anyone has trained all norms are 0.
    const shares = total === 0 ? weights : norms.map((norm) => norm / total);
    return mergedFactors(merge, averageFactors(factors, shares));
  },
};
