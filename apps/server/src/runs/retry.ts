// When somebody who has no place asks again. The server tells those who wait when a place opens, so asking again is for those
// who missed it: spread over what is left of the phase, and over the more time the more wait. Pure.
import type { MachineState } from '../coordinator/types.ts';

const SOONEST_MS = 5_000;
const LATEST_MS = 300_000;
const LEAST_SPREAD_MS = 10_000;
/** Where no deadline says when something will change. */
const WITHOUT_DEADLINE_MS = 30_000;
/** Of the spread for each who waits: no more than a hundred a second come back. */
const PER_WAITING_MS = 10;

/** Milliseconds, for `random` uniform in [0, 1). */
export function retryAfterMs(
  { remainingMs, wishes }: Pick<MachineState, 'remainingMs' | 'wishes'>,
  random: number,
): number {
  const spread = Math.max(LEAST_SPREAD_MS, remainingMs ?? WITHOUT_DEADLINE_MS, wishes.length * PER_WAITING_MS);
  return SOONEST_MS + Math.floor(random * Math.min(spread, LATEST_MS - SOONEST_MS));
}
