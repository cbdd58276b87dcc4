// The merge of one matrix, from places in files to factors of the wanted rank. What a merge process is sent and sends back is
// here too: plain data, so that the work is the same in this process and in another.
import {
  agreementOf,
  cosinesWithSum,
  type Factors,
  isLowRank,
  lowRankOf,
  normOfSum,
  readOutState,
  type State,
  type Strategy,
  strategyByName,
} from '@weft/flexlora';
import { type FactorPair, FormatError, type LoraFactors, readFactor, type TensorEntry } from '@weft/formats';
import { type FileVersion, lazyFactors, readTensor } from '@weft/server/merge';
import { CommandError } from '../../command.ts';
import { unreadable } from '../../disk.ts';
import type { MergedModule } from './report.ts';

/** s of the merged adapter, α = 2r: the default convention of this project. */
const SCALE = 2;

/** One adapted matrix of one adapter folder. */
export interface StoredPair {
  /** The folder, for errors. */
  readonly path: string;
  readonly file: FileVersion;
  readonly pair: FactorPair<TensorEntry>;
}

export interface MatrixJob {
  readonly module: string;
  readonly strategy: string;
  /** Of the merged factors. */
  readonly rank: number;
  readonly global: StoredPair | null;
  readonly updates: readonly { readonly weight: number; readonly end: StoredPair; readonly start: StoredPair | null }[];
}

export interface MergedMatrix {
  readonly factors: LoraFactors;
  readonly report: MergedModule;
}

/** The errors of an adapter's files do not know in which folder these lie; here there are several. */
export const inFolder = (path: string, cause: unknown): unknown =>
  cause instanceof FormatError
    ? new CommandError(cause.code, `The adapter in ${path} cannot be merged.`, { cause })
    : cause;

/** Read when they are taken, and found finite then. Throws CommandError or FormatError naming the folder. */
function factorsOf({ path, file, pair }: StoredPair): Factors {
  return lazyFactors(pair, (factor) => {
    try {
      return readFactor(readTensor(file, pair[factor]), pair.module);
    } catch (cause) {
      // A system error has a number; an error of ours has not.
      throw cause instanceof Error && 'errno' in cause ? unreadable(file.path, cause) : inFolder(path, cause);
    }
  });
}

/** Holds one update at a time where the route allows it. Throws MergeError, FormatError or CommandError. */
export function mergeMatrix({ module, strategy: name, rank, global, updates }: MatrixJob): MergedMatrix {
  const strategy: Strategy = strategyByName(name);
  const changes = updates.map(({ weight, end, start }) => ({
    name: end.path,
    weight,
    end: factorsOf(end),
    start: start && factorsOf(start),
  }));
  const { next, report } = strategy.mergeMatrix({
    name: module,
    current: global === null ? null : lowRankOf(factorsOf(global), module),
    updates: changes,
    maxRank: Number.POSITIVE_INFINITY,
  });
  const agreement = agreementOf(changes);
  const factors = readOutState(next, { rank, scale: SCALE, seed: `weft/${module}` });
  return {
    factors: { ...factors, module, alpha: SCALE * rank },
    report: {
      ...{ module, shape: [next.out, next.in], lost: lossOf(next, factors), ...report },
      cosineToMean: cosinesWithSum(agreement).map((cosine) => cosine ?? 0),
      changeNorm: agreement.own.map(Math.sqrt),
    },
  };
}

/** ‖M − M_R‖ / ‖M‖: of a decomposition from its singular values, since a difference would cancel. */
function lossOf(state: State, served: Factors): number {
  if (isLowRank(state)) {
    const norm = (from: number): number =>
      Math.sqrt(state.sigma.subarray(from).reduceRight((sum, value) => sum + value ** 2, 0));
    return served.rank >= state.sigma.length ? 0 : norm(served.rank) / norm(0);
  }
  if (served.rank >= state.rank) return 0;
  const whole = normOfSum([{ weight: 1, factors: state }]);
  const lost = normOfSum([
    { weight: 1, factors: state },
    { weight: -1, factors: served },
  ]);
  return whole === 0 ? 0 : lost / whole;
}
