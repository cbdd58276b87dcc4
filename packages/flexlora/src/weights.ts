// How much each client counts.
import { MergeError } from './errors.ts';

export interface WeightLimit {
  /** Largest share one client may have, in (0, 1]. */
  readonly maxWeightShare: number;
  /** Number of clients from which on the limit holds; below it a limit would only make everyone equal. */
  readonly fromClients?: number;
}

/** Counts smaller than the largest by more than this are none. */
const SMALLEST_RATIO = 2 ** -1000;

/**
 * Shares n_i / Σn of the counts (labelled target tokens, or examples), which sum to 1. From `fromClients` (8) clients on no
 * share exceeds `maxWeightShare`; the excess is spread over the others in proportion to their counts. Clients with a count
 * of 0 get nothing; when the others are too few for the limit, they share equally. Throws MergeError 'weights'.
 */
export function normaliseWeights(
  counts: readonly number[],
  { maxWeightShare, fromClients = 8 }: WeightLimit = { maxWeightShare: 1 },
): number[] {
  if (!(maxWeightShare > 0 && maxWeightShare <= 1))
    throw new MergeError('weights', `The largest weight share is ${maxWeightShare}; it must lie in (0, 1].`);
  for (const [i, count] of counts.entries()) {
    if (!Number.isFinite(count) || count < 0)
      throw new MergeError('weights', `The weight of update ${i + 1} is ${count}; weights are not negative.`);
  }
  const largest = Math.max(0, ...counts);
  if (largest === 0) throw new MergeError('weights', 'All weights are 0; there is nothing to merge.');
  // Relative to the largest first, so that the sum cannot overflow. What nothing in float64 can be raised to a share from
  // counts as none: denormal numbers lose their ratios.
  const relative = counts.map((count) => (count / largest < SMALLEST_RATIO ? 0 : count / largest));
  const total = relative.reduce((sum, count) => sum + count, 0);
  const shares = relative.map((count) => count / total);
  if (counts.length < fromClients) return shares;
  const present = shares.filter((share) => share > 0).length;
  const limit = Math.max(maxWeightShare, 1 / present);
  // Raising the others may lift one of them over the limit in its turn; at most one round a client.
  const capped = new Set<number>();
  for (;;) {
    const free = relative.reduce((sum, count, i) => (capped.has(i) ? sum : sum + count), 0);
    const factor = free > 0 ? (1 - capped.size * limit) / free : 0;
    const over = relative.findIndex((count, i) => !capped.has(i) && count * factor > limit * (1 + 1e-12));
    const result = relative.map((count, i) => (capped.has(i) ? limit : count * factor));
    if (over < 0) return result;
    for (const [i, count] of relative.entries()) if (count * factor > limit) capped.add(i);
  }
}
