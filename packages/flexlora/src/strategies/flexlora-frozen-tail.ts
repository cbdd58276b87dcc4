// flexlora-carry whose clients have all of M: beside its best approximation of rank r, which it trains, a client holds the
// tail M − trunc_r(M) as a frozen side adapter, so that a gradient of rank r is taken at the true model. The merge is carry's:
// M ← M + Σ w·(s·B·A − S), the tail being the same before and after. Costs a download of up to rank K − r more a round, and
// a client's memory and time for it; uploads stay as small as they are.
import { changeTerms } from '../spectrum.ts';
import type { LowRank } from '../types.ts';
import { mergeChanges } from './changes.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const flexloraFrozenTail: Strategy<LowRank> = {
  name: 'flexlora-frozen-tail',
  needsStart: true,
  synchronousOnly: false,
  mergesChanges: true,
  clips: true,
  mixedRanks: true,
  trains: 'both',
  side: 'tail',
  mergeMatrix(merge) {
    checkMerge(flexloraFrozenTail, merge);
    return mergeChanges(merge, merge.updates.flatMap(changeTerms));
  },
};
