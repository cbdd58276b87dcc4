// FLoRA (Wang et al., NeurIPS 2024, arXiv 2409.05976): the factors of all clients stacked, M ← M + Σ w·s·B·A, which is the sum
// of their products; every round clients start from fresh factors (B = 0) beside the whole of M. Published, M is added to the
// weights and a round sends all stacks, rank Σr, to everyone; here it is a frozen side adapter of the state's rank K at most,
// and what that cuts off is recorded. Exact, but no client goes on with what it trained: its optimiser starts at B = 0 each round.
import { clippedTerms } from '../robust.ts';
import type { LowRank } from '../types.ts';
import { mergeChanges } from './changes.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const flora: Strategy<LowRank> = {
  name: 'flora',
  needsStart: false,
  synchronousOnly: false,
  mergesChanges: true,
  clips: true,
  mixedRanks: true,
  trains: 'both',
  side: 'whole',
  mergeMatrix(merge) {
    checkMerge(flora, merge);
    const { updates, name = 'the matrix' } = merge;
    const products = updates.flatMap((update, i) =>
      clippedTerms(update, `${update.name ?? `update ${i + 1}`} of ${name}`),
    );
    return mergeChanges(merge, products);
  },
};
