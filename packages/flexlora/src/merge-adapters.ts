// Whole adapters: the merge of every matrix they adapt, and the read-out of every matrix at the ranks asked for.
import { MergeError } from './errors.ts';
import { type ReadOut, readOutState, type ServedFactors } from './read-out.ts';
import type { MatrixReport } from './spectrum.ts';
import type { MergedMatrix, Strategy } from './strategies/index.ts';
import { lowRankOf } from './sum.ts';
import type { Factors, LowRank, Shape, State } from './types.ts';

/** One adapter to merge: factors by module name. */
export interface AdapterUpdate {
  /** What errors call it, such as its folder. */
  readonly name: string;
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

/** Throws MergeError 'modules' unless `other` adapts exactly the modules of `wanted`. */
function checkModules(wanted: ReadonlySet<string>, reference: string, other: Iterable<string>, name: string): void {
  const present = new Set(other);
  const remedy = 'merge adapters of one model with the same target modules';
  for (const module of wanted)
    if (!present.has(module))
      throw new MergeError('modules', `${name} does not adapt ${module}, which ${reference} does; ${remedy}.`);
  for (const module of present)
    if (!wanted.has(module))
      throw new MergeError('modules', `${name} adapts ${module}, which ${reference} does not; ${remedy}.`);
}

const need = <T>(map: ReadonlyMap<string, T>, module: string, name: string): T => {
  const value = map.get(module);
  if (value === undefined) throw new MergeError('modules', `${name} does not adapt ${module}.`);
  return value;
};

/**
 * Merges one matrix after another, in the order of names, so that a caller may drop each before the next is made. Throws
 * MergeError naming the adapter and the module at fault; that all adapt the same modules is checked before the first merge.
 */
export function* mergeByModule({
  strategy,
  current,
  updates,
  maxRank,
}: AdapterMerge): Generator<MergedMatrix & { readonly module: string }, void, undefined> {
  const [first] = updates;
  if (!first) throw new MergeError('weights', 'There is no adapter to merge.');
  const modules = new Set(first.end.keys());
  for (const { name, end, start } of updates) {
    checkModules(modules, first.name, end.keys(), name);
    if (start) checkModules(modules, first.name, start.keys(), `The start of ${name}`);
  }
  if (current) checkModules(modules, first.name, current.keys(), 'The global state');
  for (const module of [...modules].sort()) {
    const merged = strategy.mergeMatrix({
      name: module,
      current: current ? need(current, module, 'The global state') : null,
      updates: updates.map(({ name, weight, end, start }) => ({
        name,
        weight,
        end: need(end, module, name),
        start: start ? need(start, module, `The start of ${name}`) : null,
      })),
      maxRank: maxRank(module, need(first.end, module, first.name)),
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
