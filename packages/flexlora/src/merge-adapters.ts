// Whole adapters: the merge of every matrix they adapt, and the read-out of every matrix at the ranks asked for.
import { MergeError } from './errors.ts';
import { type ReadOut, readOutState, type ServedFactors } from './read-out.ts';
import type { MatrixReport } from './spectrum.ts';
import type { MergedMatrix, Strategy } from './strategies/index.ts';
import { lowRankOf } from './sum.ts';
import { checkShape, type Factors, type LowRank, type Shape, type State } from './types.ts';

/** What of an adapter has to fit that of the others, before any value is read. */
export interface AdapterShapes {
  /** What errors call it, such as its folder. */
  readonly name: string;
  readonly end: ReadonlyMap<string, Shape>;
  readonly start: ReadonlyMap<string, Shape> | null;
}

/** One adapter to merge: factors by module name. */
export interface AdapterUpdate extends AdapterShapes {
  /** Share of the merge ({@link normaliseWeights}). */
  readonly weight: number;
  readonly end: ReadonlyMap<string, Factors>;
  /** What it started from, exactly as served; null where the strategy does without. */
  readonly start: ReadonlyMap<string, Factors> | null;
}

export interface AdapterMerge {
  readonly strategy: Strategy;
  /** The state the server holds by module; null before the first merge. */
  readonly current: ReadonlyMap<string, State> | null;
  readonly updates: readonly AdapterUpdate[];
  /** Rank of each matrix's next state at most. */
  readonly maxRank: (module: string, shape: Shape) => number;
}

export interface MergedAdapter {
  /** By module, in the order of names. */
  readonly state: ReadonlyMap<string, State>;
  readonly reports: ReadonlyMap<string, MatrixReport>;
}

/**
 * Throws MergeError 'modules' unless `other` adapts exactly the modules of `first`, 'shape' unless at its shapes. `called` is
 * what a message calls one of its matrices.
 */
function checkFit(
  first: AdapterShapes,
  other: ReadonlyMap<string, Shape>,
  name: string,
  called: (module: string) => string,
): void {
  const remedy = 'merge adapters of one model with the same target modules';
  for (const module of first.end.keys())
    if (!other.has(module))
      throw new MergeError('modules', `${name} does not adapt ${module}, which ${first.name} does; ${remedy}.`);
  for (const [module, shape] of other) {
    const expected = first.end.get(module);
    if (!expected)
      throw new MergeError('modules', `${name} adapts ${module}, which ${first.name} does not; ${remedy}.`);
    checkShape(shape, expected, called(module));
  }
}

/**
 * The matrices that all of these adapt, in the order of names. Throws MergeError 'weights' when there is no adapter, 'modules'
 * or 'shape' naming the first that does not fit.
 */
export function commonMatrices(
  updates: readonly AdapterShapes[],
  current: ReadonlyMap<string, Shape> | null = null,
): Map<string, Shape> {
  const [first] = updates;
  if (!first) throw new MergeError('weights', 'There is no adapter to merge.');
  for (const { name, end, start } of updates) {
    checkFit(first, end, name, (module) => `${name} of ${module}`);
    if (start) checkFit(first, start, `The start of ${name}`, (module) => `${name} of ${module}, start weights,`);
  }
  if (current) checkFit(first, current, 'The global state', (module) => `the state of ${module}`);
  return new Map([...first.end].sort(([a], [b]) => (a < b ? -1 : 1)));
}

const need = <T>(map: ReadonlyMap<string, T>, module: string, name: string): T => {
  const value = map.get(module);
  if (value === undefined) throw new MergeError('modules', `${name} does not adapt ${module}.`);
  return value;
};

/**
 * Merges one matrix after another, in the order of names, so that a caller may drop each before the next is made. Throws
 * MergeError naming the adapter and the module at fault; that all adapt the same
 * modules at the same shapes is checked before the first merge.
 */
export function* mergeByModule({
  strategy,
  current,
  updates,
  maxRank,
}: AdapterMerge): Generator<MergedMatrix & { readonly module: string }, void, undefined> {
  for (const [module, shape] of commonMatrices(updates, current)) {
    const merged = strategy.mergeMatrix({
      name: module,
      current: current ? need(current, module, 'The global state') : null,
      updates: updates.map(({ name, weight, end, start }) => ({
        name,
        weight,
        end: need(end, module, name),
        start: start ? need(start, module, `The start of ${name}`) : null,
      })),
      maxRank: maxRank(module, shape),
    });
    yield { module, ...merged };
  }
}

/** {@link mergeByModule}, all matrices at once. */
export function mergeAdapters(merge: AdapterMerge): MergedAdapter {
  const state = new Map<string, State>();
  const reports = new Map<string, MatrixReport>();
  for (const { module, next, report } of mergeByModule(merge)) {
    state.set(module, next);
    reports.set(module, report);
  }
  return { state, reports };
}

/** The factors of every matrix at the ranks and scales that `spec` gives by module. */
export function readOutAdapter(
  state: ReadonlyMap<string, State>,
  spec: (module: string, shape: Shape) => ReadOut,
): Map<string, ServedFactors> {
  return new Map(Array.from(state, ([module, update]) => [module, readOutState(update, spec(module, update))]));
}

/** A state from an adapter's factors: what `weft merge --global` starts from. */
export const stateOf = (adapter: ReadonlyMap<string, Factors>): Map<string, LowRank> =>
  new Map(Array.from(adapter, ([module, factors]) => [module, lowRankOf(factors, module)]));
