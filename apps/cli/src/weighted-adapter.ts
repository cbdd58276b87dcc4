// What `weft merge` takes for each adapter: ADAPTER_DIR[=WEIGHT][@START_DIR]. Folder names may hold '=' and '@' too, so the
// reading whose folders exist wins; only when none does is the text taken apart by its signs alone.
import { UsageError } from './command.ts';

export interface WeightedAdapter {
  readonly path: string;
  /** Null when none was given. */
  readonly weight: number | null;
  /** Folder of the adapter it started from. */
  readonly start: string | null;
}

interface Reading {
  readonly path: string;
  readonly weight: string | null;
  readonly start: string | null;
}

const isWeight = (text: string): boolean => text.trim() !== '' && Number.isFinite(Number(text)) && Number(text) >= 0;

/** PATH and PATH=WEIGHT, the whole text first. */
function withoutStart(text: string, start: string | null): Reading[] {
  const equals = text.lastIndexOf('=');
  const plain: Reading = { path: text, weight: null, start };
  return equals > 0 ? [plain, { path: text.slice(0, equals), weight: text.slice(equals + 1), start }] : [plain];
}

/** Every way to cut the text, those with a start first, the shortest start before the longer ones. */
function* readings(text: string): Generator<Reading, void, undefined> {
  for (let cut = text.lastIndexOf('@'); cut > 0; cut = text.lastIndexOf('@', cut - 1))
    yield* withoutStart(text.slice(0, cut), text.slice(cut + 1));
  yield* withoutStart(text, null);
}

/**
 * Reads one argument. `isFolder` says whether a path is a folder. A folder that does not exist is left to whoever opens it.
 * Throws {@link UsageError} for a weight that is no number of at least 0, and for an empty start.
 */
export function parseWeightedAdapter(text: string, isFolder: (path: string) => boolean): WeightedAdapter {
  if (isFolder(text)) return { path: text, weight: null, start: null };
  const all = [...readings(text)];
  const fits = ({ weight }: Reading): boolean => weight === null || isWeight(weight);
  const exists = (reading: Reading): boolean => isFolder(reading.path);
  const chosen =
    all.find((one) => exists(one) && fits(one) && (one.start === null || isFolder(one.start))) ??
    all.find(exists) ??
    all.find((one) => one.weight !== null && fits(one));
  if (!chosen) return { path: text, weight: null, start: null };
  const { path, weight, start } = chosen;
  if (weight !== null && !isWeight(weight))
    throw new UsageError(`The weight of ${path} is "${weight}"; write ${path}=WEIGHT with a number of at least 0.`);
  if (start === '') throw new UsageError(`${text} ends in @; write the folder of its start after it, or leave @ out.`);
  return { path, weight: weight === null ? null : Number(weight), start };
}

/**
 * The weight of each adapter: 1 for all when none has one. Throws {@link UsageError} when only some have one, or when
 * all are 0.
 */
export function weightsOf(adapters: readonly WeightedAdapter[]): number[] {
  const given = adapters.find(({ weight }) => weight !== null);
  const omitted = adapters.find(({ weight }) => weight === null);
  if (given && omitted)
    throw new UsageError(`${given.path} has a weight and ${omitted.path} has none; give all a weight, or none.`);
  const weights = adapters.map(({ weight }) => weight ?? 1);
  if (weights.every((weight) => weight === 0)) throw new UsageError('All weights are 0; give one that is more.');
  return weights;
}
