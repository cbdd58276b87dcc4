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
  mergesChanges: true,
  mixedRanks: true,
  trains: 'both',
  mergeMatrix(merge) {
    checkMerge(flexloraCarry, merge);
    const { current, updates, maxRank, momentum, name = 'the matrix' } = merge;
    const state: Term[] = current ? [{ weight: 1, factors: current, name: `the state of ${name}` }] : [];
    const changes = updates.flatMap(changeTerms);
    if (!momentum || momentum.beta === 0) {
      const { value, discarded } = sumOfProducts([...state, ...changes], { maxRank, seed: name });
      return { next: value, report: matrixReport(value, discarded, updates) };
    }
    const { beta, velocity } = momentum;
    const before: Term[] = velocity ? [{ weight: beta, factors: velocity, name: `the momentum of ${name}` }] : [];
    const moved = sumOfProducts([...before, ...changes], { maxRank, seed: `${name} momentum` });
    const { value, discarded } = sumOfProducts([...state, { weight: 1, factors: moved.value }], {
      maxRank,
      seed: name,
    });
    const kept = Math.sqrt(moved.value.sigma.reduce((sum, sigma) => sum + sigma * sigma, 0));
    const whole = Math.hypot(kept, moved.discarded);
    return {
      next: value,
      report: matrixReport(value, discarded, updates),
      velocity: { value: moved.value, discardedTail: whole === 0 ? 0 : moved.discarded / whole },
    };
  },
};
