// The adapter a training begins with, and the one it writes.
import {
  type LoraAdapter,
  type LoraFactors,
  type ModelConfig,
  PROJECTIONS,
  type Projection,
  uniformRank,
} from '@weft/formats';
import { type AdapterSpec, checkAdapter, initialAdapter } from '@weft/trainer';
import { UsageError } from '../../command.ts';
import { type OpenedModel, readAdapterFolder } from '../../folders.ts';
import type { TrainOptions } from './options.ts';

/** α = 2r also where a pattern sets the rank, unless told otherwise. */
function specOf(options: TrainOptions, rank: number): AdapterSpec {
  const { alpha = 2 * rank, rankPattern = {}, targets = PROJECTIONS, rslora = false } = options;
  const alphas = Object.entries(rankPattern).map(([key, own]) => [key, options.alpha ?? 2 * own] as const);
  const alphaPattern = { ...options.alphaPattern };
  for (const [key, value] of alphas) alphaPattern[key] ??= value;
  return { rank, alpha, rankPattern, alphaPattern, targets, rslora };
}

/**
 * The adapter given, which must agree with what else is asked, or a fresh one. Throws UsageError where it does not, or
 * where a pattern names no matrix.
 */
export async function startAdapter(options: TrainOptions, { config, name }: OpenedModel): Promise<LoraAdapter> {
  if (options.adapter !== undefined) return checked(await readAdapterFolder(options.adapter), options, config);
  if (options.rank === undefined) throw new UsageError('Which rank? Give --rank R.');
  const spec = specOf(options, options.rank);
  const adapter = { ...initialAdapter(config, spec, String(options.seed)), baseModel: name };
  const modules = [...adapter.matrices.keys()];
  for (const [option, pattern] of Object.entries({
    '--rank-pattern': options.rankPattern,
    '--alpha-pattern': options.alphaPattern,
  })) {
    const stray = Object.keys(pattern ?? {}).find(
      (key) => !modules.some((module) => new RegExp(`^(.*\\.)?(${key})$`).test(module)),
    );
    if (stray !== undefined)
      throw new UsageError(`${option} has "${stray}", which ends no adapted module's name, as in ${modules[0]}.`);
  }
  return adapter;
}

function checked(adapter: LoraAdapter, options: TrainOptions, config: ModelConfig): LoraAdapter {
  checkAdapter(config, adapter);
  const { rank, alpha, targets } = options;
  const matrices = [...adapter.matrices.values()];
  const disagree = (option: string, asked: string, has: string): never => {
    throw new UsageError(`${option} ${asked} disagrees with --adapter, which has ${has}; leave ${option} out.`);
  };
  const ranks = [...new Set(matrices.map((matrix) => matrix.rank))];
  if (rank !== undefined && !ranks.includes(rank)) disagree('--rank', String(rank), `rank ${ranks.join(', ')}`);
  const alphas = [...new Set(matrices.map((matrix) => matrix.alpha))];
  if (alpha !== undefined && !alphas.includes(alpha)) disagree('--alpha', String(alpha), `alpha ${alphas.join(', ')}`);
  const adapted = targetNames(adapter);
  if (targets !== undefined && targets.join() !== adapted.join()) disagree('--targets', targets.join(), adapted.join());
  return adapter;
}

export const targetNames = ({ matrices }: LoraAdapter): Projection[] =>
  PROJECTIONS.filter((projection) => [...matrices.keys()].some((module) => module.endsWith(`.${projection}`)));

/** The frozen adapters beside the one in training. */
export async function readSides({ side = [] }: TrainOptions, config: ModelConfig): Promise<LoraFactors[][]> {
  const sides: LoraFactors[][] = [];
  for (const folder of side) {
    const adapter = await readAdapterFolder(folder);
    checkAdapter(config, adapter);
    sides.push([...adapter.matrices.values()]);
  }
  return sides;
}

/**
 * The adapter as it is written: with one rank for all matrices, padded with zeros where one is too small to be trained at
 * it, unless several ranks were asked for.
 */
export function exported(
  trained: LoraAdapter,
  { rank = 1, keepRanks, rankPattern, dropout }: TrainOptions,
): LoraAdapter {
  const adapter = { ...trained, dropout };
  if (keepRanks || rankPattern) return adapter;
  return uniformRank(adapter, Math.max(rank, ...[...adapter.matrices.values()].map((factors) => factors.rank)));
}

/** One number where all matrices agree, else all that occur. */
export function distinct(values: readonly number[]): number | number[] {
  const found = [...new Set(values)].sort((a, b) => a - b);
  return found.length === 1 ? (found[0] ?? 0) : found;
}
