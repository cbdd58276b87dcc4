// M ← M + Δ, with the server's momentum or without: what the strategies share that merge changes.
import { matrixReport } from '../spectrum.ts';
import type { Term } from '../stack.ts';
import { sumOfProducts } from '../sum.ts';
import type { LowRank } from '../types.ts';
import type { MatrixMerge, MergedMatrix } from './strategy.ts';

/** The state and Δ = Σ `changes`, kept at `maxRank`; with momentum M + V instead. Throws MergeError. */
export function mergeChanges(merge: MatrixMerge, changes: readonly Term[]): MergedMatrix<LowRank> {
  const { current, updates, maxRank, momentum, name = 'the matrix' } = merge;
  const state: Term[] = current ? [{ weight: 1, factors: current, name: `the state of ${name}` }] : [];
  if (!momentum || momentum.beta === 0) {
    const { value, discarded } = sumOfProducts([...state, ...changes], { maxRank, seed: name });
    return { next: value, report: matrixReport(value, discarded, updates) };
  }
  const { beta, velocity } = momentum;
  const before: Term[] = velocity ? [{ weight: beta, factors: velocity, name: `the momentum of ${name}` }] : [];
  const moved = sumOfProducts([...before, ...changes], { maxRank, seed: `${name} momentum` });
  const { value, discarded } = sumOfProducts([...state, { weight: 1, factors: moved.value }], { maxRank, seed: name });
  const kept = Math.sqrt(moved.value.sigma.reduce((sum, sigma) => sum + sigma * sigma, 0));
  const whole = Math.hypot(kept, moved.discarded);
  return {
    next: value,
    report: matrixReport(value, discarded, updates),
    velocity: { value: moved.value, discardedTail: whole === 0 ? 0 : moved.discarded / whole },
  };
}
