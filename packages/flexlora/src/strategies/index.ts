// The strategies by name.
import { MergeError } from '../errors.ts';
import { fedit } from './fedit.ts';
import { ffa } from './ffa.ts';
import { flexlora } from './flexlora.ts';
import { flexloraCarry } from './flexlora-carry.ts';
import { flexloraFrozenTail } from './flexlora-frozen-tail.ts';
import { flora } from './flora.ts';
import { hetlora } from './hetlora.ts';
import { raflora } from './raflora.ts';
import { slora } from './slora.ts';
import type { Strategy } from './strategy.ts';
import { zeroPad } from './zero-pad.ts';

export { mergeSparse, type SparseMerge, type SparseMerged, type SparseValues } from './slora.ts';
export type { MatrixMerge, MergedMatrix, Momentum, Strategy } from './strategy.ts';
export { fedit, ffa, flexlora, flexloraCarry, flexloraFrozenTail, flora, hetlora, raflora, slora, zeroPad };

const STRATEGIES: readonly Strategy[] = [
  flexloraCarry,
  flexloraFrozenTail,
  flexlora,
  flora,
  raflora,
  zeroPad,
  hetlora,
  fedit,
  ffa,
  slora,
];

export const STRATEGY_NAMES: readonly string[] = STRATEGIES.map(({ name }) => name);

/** Throws MergeError 'unknown-strategy', listing those there are. */
export function strategyByName(name: string): Strategy {
  const strategy = STRATEGIES.find((candidate) => candidate.name === name);
  if (strategy) return strategy;
  throw new MergeError('unknown-strategy', `There is no strategy ${name}; choose ${STRATEGY_NAMES.join(', ')}.`);
}
