// FlexLoRA on differences: M ← M + Σ w·(s·B·A − S), S the product a client was started from exactly as it was served. What
// no client's rank reaches is carried over instead of shrinking, and a client that did not train changes nothing, whatever
// version it started from.
import { changeTerms, matrixReport } from '../spectrum.ts';
import type { Term } from '../stack.ts';
import { sumOfProducts } from '../sum.ts';
import type { LowRank } from '../types.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const flexloraCarry: Strategy<LowRank> = {
  name: 'flexlora-carry',
  needsStart: true,
  synchronousOnly: false,
  mixedRanks: true,
  mergeMatrix(merge) {
    checkMerge(flexloraCarry, merge);
    const { current, updates, maxRank, name = 'the matrix' } = merge;
    const state: Term[] = current ? [{ weight: 1, factors: current, name: `the state of ${name}` }] : [];
    const { value, discarded } = sumOfProducts([...state, ...updates.flatMap(changeTerms)], { maxRank, seed: name });
    return { next: value, report: matrixReport(value, discarded, updates) };
  },
};
