// The strategies by name.
import { MergeError } from '../errors.ts';
import { flexlora } from './flexlora.ts';
import { flexloraCarry } from './flexlora-carry.ts';
import type { Strategy } from './strategy.ts';

export type { MatrixMerge, MergedMatrix, Strategy } from './strategy.ts';
export { flexlora, flexloraCarry };

const STRATEGIES: readonly Strategy[] = [flexlora, flexloraCarry];

export const STRATEGY_NAMES: readonly string[] = STRATEGIES.map(({ name }) => name);

/** Throws MergeError 'unknown-strategy', listing those there are. */
export function strategyByName(name: string): Strategy {
  const strategy = STRATEGIES.find((candidate) => candidate.name === name);
  if (strategy) return strategy;
  throw new MergeError('unknown-strategy', `There is no strategy ${name}; choose ${STRATEGY_NAMES.join(' or ')}.`);
}
