// Which rank this device can carry, and why not more: planned bytes against the volunteer's own limits and the device's,
// then really allocated, smallest first, and touched. A refusal by the device means "does not fit", never an error.
import type { ModelConfig, Projection } from '@weft/formats';
import { TrainerError } from './errors.ts';
import { type AdaptedMatrix, type AdapterSpec, adaptedMatrices, factorBytes, plainSpec } from './lora/adapter.ts';
import { type Pruning, tailOf } from './lora/pruning.ts';
import type { BaseModel } from './model/base-model.ts';
import { ADAMW, type Optimiser } from './optim/optimiser.ts';
import { tryFit, type Unfit } from './plan/fit.ts';
import type { GpuModel } from './plan/gpu-model.ts';
import type { StepOptions, StepShape } from './plan/layout.ts';
import { fitMemory, type MemoryPlan, type MemoryQuestion } from './plan/memory.ts';

/** The volunteer's own caps; null where it set none. */
export interface OwnLimits {
  readonly maxMemoryBytes: number | null;
  readonly maxRank: number | null;
  readonly maxUploadBytes: number | null;
}

export const NO_LIMITS: OwnLimits = { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null };

/** One rank of the run's list, and what it would take. */
export interface RankVerdict {
  readonly rank: number;
  readonly fits: boolean;
  readonly memoryBytes: number;
  readonly uploadBytes: number;
  readonly reason: string;
}

/** What a run asks for: its ranks, and the shape of a step. */
export interface RankQuestion {
  readonly ranks: readonly number[];
  /** α/r at every rank. */
  readonly alphaPerRank: number;
  readonly targets: readonly Projection[];
  readonly shape: StepShape;
  /** By rank of `ranks`: rank of the frozen side adapter that comes with it; none unless given. */
  readonly sideRanks?: readonly number[];
  /** What steps update by; AdamW unless said. Plain SGD keeps nothing, so larger ranks fit. */
  readonly optimiser?: Optimiser;
  /** HetLoRA's, whose penalty is a kernel more for every matrix; none unless given. */
  readonly pruning?: Pruning | null;
  /** What is fixed of the way a step is run; the rest is chosen to fit. */
  readonly way?: Pick<StepOptions, 'microBatch' | 'checkpoint'>;
}

/** Header of an upload, generously. */
const HEADER_BYTES = 16_384;

/** MB are 10⁶ bytes. Small uploads keep a second digit, so that ranks can be told apart. */
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;

const specOf = ({ alphaPerRank, targets }: RankQuestion, rank: number): AdapterSpec =>
  plainSpec(rank, alphaPerRank * rank, targets);

/** The frozen adapter that comes with a rank, at its largest. */
function sidesOf(config: ModelConfig, question: RankQuestion, rank: number): AdaptedMatrix[][] {
  const beside = question.sideRanks?.[question.ranks.indexOf(rank)] ?? 0;
  return beside > 0 ? [adaptedMatrices(config, plainSpec(beside, beside, question.targets))] : [];
}

/** Why a rank is out of the volunteer's own limits but memory, or null. */
function beyondOwnLimits(rank: number, upload: number, limits: OwnLimits): string | null {
  if (limits.maxRank !== null && rank > limits.maxRank) return `Rank ${rank} is above your limit of ${limits.maxRank}.`;
  if (limits.maxUploadBytes !== null && upload > limits.maxUploadBytes) {
    return `Rank ${rank} would upload ${megabytes(upload)} a round; your limit is ${megabytes(limits.maxUploadBytes)}.`;
  }
  return null;
}

function refusalOf(rank: number, { smallest, refusal }: Unfit, limits: OwnLimits): string {
  if (refusal?.code === 'out-of-memory') return `The GPU has no room for rank ${rank}.`;
  if (refusal) return `Rank ${rank} is beyond this GPU’s limits: ${refusal.message}`;
  return `Rank ${rank} would need ${megabytes(smallest ?? 0)}; your limit is ${megabytes(limits.maxMemoryBytes ?? 0)}.`;
}

/**
 * A verdict for every rank of the run, in ascending order: planned within the volunteer's limits, with smaller
 * micro-batches and recomputed activations where that is what it takes, then tried on the device; the first that does not
 * fit there ends the trying. Throws GpuError 'device-lost'.
 */
export async function rankVerdicts(model: GpuModel, question: RankQuestion, limits: OwnLimits): Promise<RankVerdict[]> {
  const verdicts: RankVerdict[] = [];
  const budget = limits.maxMemoryBytes ?? Number.POSITIVE_INFINITY;
  let full: string | null = null;
  for (const rank of [...question.ranks].sort((a, b) => a - b)) {
    const matrices = adaptedMatrices(model.config, specOf(question, rank));
    const sides = sidesOf(model.config, question, rank);
    const tail = tailOf(question.pruning ?? null, rank);
    const way = { ...question.way, sides, optimiser: question.optimiser ?? ADAMW, ...(tail ? { tail } : {}) };
    const uploadBytes = factorBytes(matrices) + HEADER_BYTES;
    const own = beyondOwnLimits(rank, uploadBytes, limits);
    const fit =
      own === null && full === null ? await tryFit(model, matrices, question.shape, { ...way, budget }) : null;
    const isPlan = fit !== null && 'total' in fit;
    if (fit && !isPlan && fit.refusal) full = refusalOf(rank, fit, limits);
    const refusal = own ?? full ?? (fit && !isPlan ? refusalOf(rank, fit, limits) : null);
    const memory = isPlan
      ? fit
      : fitMemory(model.config, matrices, question.shape, {
          ...way,
          weights: model.type,
          slabLimit: Number.MAX_SAFE_INTEGER,
          budget,
        }).plan;
    const beside = sides.reduce((sum, side) => sum + factorBytes(side), 0);
    const takes =
      `Rank ${rank} takes ${megabytes(memory.total)} of GPU memory and uploads ${megabytes(uploadBytes)} a round` +
      (beside > 0 ? `, and downloads ${megabytes(beside)} at most to train beside.` : '.');
    verdicts.push({ rank, fits: refusal === null, memoryBytes: memory.total, uploadBytes, reason: refusal ?? takes });
  }
  return verdicts;
}

/** The largest rank that fits. Throws TrainerError 'no-rank-fits' with the reason of the smallest. */
export function chooseRank(verdicts: readonly RankVerdict[]): number {
  const best = verdicts.filter(({ fits }) => fits).at(-1);
  if (best) return best.rank;
  throw new TrainerError(
    'no-rank-fits',
    `No rank of this run fits. ${verdicts[0]?.reason ?? ''} Raise your limits under “My limits”, or close other tabs.`,
  );
}

/** Planned bytes of every rank within a budget, without a GPU. */
export function plannedMemory(
  { config }: Pick<BaseModel, 'config'>,
  question: RankQuestion,
  options: MemoryQuestion & { budget?: number } = {},
): { rank: number; fits: boolean; memory: MemoryPlan }[] {
  return question.ranks.map((rank) => {
    const matrices = adaptedMatrices(config, specOf(question, rank));
    const { plan, fits } = fitMemory(config, matrices, question.shape, {
      ...question.way,
      sides: sidesOf(config, question, rank),
      ...(question.optimiser ? { optimiser: question.optimiser } : {}),
      budget: Number.POSITIVE_INFINITY,
      ...options,
    });
    return { rank, fits, memory: plan };
  });
}
