// FlexLoRA on differences: M ← M + Σ w·(s·B·A − S), S the product a client was started from exactly as it was served. What
// no client's rank reaches is carried over instead of shrinking, and a client that did not train changes nothing, whatever
// version it started from. Costs flexlora with twice Σr, and the state's rank. Weak clients train at a truncated model.
import { changeTerms } from '../spectrum.ts';
import type { LowRank } from '../types.ts';
import { mergeChanges } from './changes.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const flexloraCarry: Strategy<LowRank> = {
  name: 'flexlora-carry',
  needsStart: true,
  synchronousOnly: false,
  mergesChanges: true,
  clips: true,
  mixedRanks: true,
  trains: 'both',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(flexloraCarry, merge);
    return mergeChanges(merge, merge.updates.flatMap(changeTerms));
  },
};
