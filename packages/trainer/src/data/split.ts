// Rows kept from training to measure it by. Rows that say the same are one row here: a duplicate on the other side would
// let the model be tested on what it was shown.
import { TrainerError } from '../errors.ts';
import { seededRandom, shuffled } from '../random.ts';

export interface Split<T> {
  readonly train: readonly T[];
  readonly heldOut: readonly T[];
  /** Rows left out of both because an earlier one is identical. */
  readonly duplicates: number;
}

/**
 * Holds out about `fraction` of the distinct rows, chosen by the seed and their order alone; at least one row on each side,
 * each side in the order of `rows`. Rows are identical when all their fields are. Works on anything JSON can write: rows,
 * or examples, such as the windows of one long text. Throws TrainerError 'bad-settings' for a fraction not between 0 and 1,
 * or fewer than two distinct rows.
 */
export function splitRows<T extends object>(
  rows: readonly T[],
  { fraction, seed }: { readonly fraction: number; readonly seed: string },
): Split<T> {
  if (!(fraction > 0 && fraction < 1))
    throw new TrainerError('bad-settings', `The held-out fraction must lie between 0 and 1; it is ${fraction}.`);
  const seen = new Set<string>();
  const distinct = rows.filter((row) => {
    const key = JSON.stringify(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)));
    const fresh = !seen.has(key);
    seen.add(key);
    return fresh;
  });
  if (distinct.length < 2)
    throw new TrainerError(
      'bad-settings',
      `There ${distinct.length === 1 ? 'is one distinct row' : 'are no rows'}; a split needs two, one to train on and one to hold out.`,
    );
  const count = Math.min(distinct.length - 1, Math.max(1, Math.round(fraction * distinct.length)));
  const chosen = new Set(shuffled([...distinct.keys()], seededRandom(seed, 'split')).slice(0, count));
  return {
    train: distinct.filter((_, i) => !chosen.has(i)),
    heldOut: distinct.filter((_, i) => chosen.has(i)),
    duplicates: rows.length - distinct.length,
  };
}
