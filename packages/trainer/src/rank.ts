// Which rank this device can carry, and why not more: planned bytes against the volunteer's own limits and the device's,
// then really allocated, smallest first, and touched. A refusal by the device means "does not fit", never an error.
import { type ModelConfig, type Projection, type SparseSpec, sparseBytes } from '@weft/formats';
import { TrainerError } from './errors.ts';
import { type AdaptedMatrix, type AdapterSpec, adaptedMatrices, factorBytes, plainSpec } from './lora/adapter.ts';
import { type Pruning, tailOf } from './lora/pruning.ts';
import { sparseMatrices } from './lora/sparse.ts';
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
  /** Rounds that train sparse updates are still to come: these must fit too, whatever the rank. */
  readonly sparse?: Pick<SparseSpec, 'density'>;
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

/** What one kind of round takes, and why this device cannot have it; `refusal` null where it can. */
interface Need {
  readonly memory: number;
  readonly upload: number;
  readonly refusal: string | null;
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

const uploadRefusal = (what: string, upload: number, { maxUploadBytes }: OwnLimits): string | null =>
  maxUploadBytes !== null && upload > maxUploadBytes
    ? `${capital(what)} would upload ${megabytes(upload)} a round; your limit is ${megabytes(maxUploadBytes)}.`
    : null;

/** Why a rank is out of the volunteer's own limits but memory, or null. */
function beyondOwnLimits(rank: number, upload: number, limits: OwnLimits): string | null {
  if (limits.maxRank !== null && rank > limits.maxRank) return `Rank ${rank} is above your limit of ${limits.maxRank}.`;
  return uploadRefusal(`rank ${rank}`, upload, limits);
}

/** `what`: "rank 8". */
function refusalOf(what: string, { smallest, refusal }: Unfit, limits: OwnLimits): string {
  if (refusal?.code === 'out-of-memory') return `The GPU has no room for ${what}.`;
  if (refusal) return `${capital(what)} is beyond this GPU’s limits: ${refusal.message}`;
  return `${capital(what)} would need ${megabytes(smallest ?? 0)}; your limit is ${megabytes(limits.maxMemoryBytes ?? 0)}.`;
}

/** Planned bytes in the way that fits best, whatever the device has. */
function plannedBytes(
  model: GpuModel,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  way: MemoryQuestion & { budget: number },
): number {
  const question = { ...way, weights: model.type, slabLimit: Number.MAX_SAFE_INTEGER };
  return fitMemory(model.config, matrices, shape, question).plan.total;
}

/** Of the run's sparse rounds, which are the same at every rank; null where none are to come. */
async function sparseNeed(model: GpuModel, question: RankQuestion, limits: OwnLimits): Promise<Need | null> {
  if (!question.sparse) return null;
  const what = 'a sparse update';
  const budget = limits.maxMemoryBytes ?? Number.POSITIVE_INFINITY;
  const matrices = sparseMatrices(model.config, { ...question.sparse, targets: question.targets, seed: '' });
  const upload = sparseBytes(question.sparse, matrices) + HEADER_BYTES;
  const own = uploadRefusal(what, upload, limits);
  const way = { ...question.way, optimiser: question.optimiser ?? ADAMW };
  const fit = own === null ? await tryFit(model, matrices, question.shape, { ...way, budget }) : null;
  if (fit && 'total' in fit) return { memory: fit.total, upload, refusal: null };
  const refusal = own ?? (fit ? refusalOf(what, fit, limits) : null);
  return { memory: plannedBytes(model, matrices, question.shape, { ...way, budget }), upload, refusal };
}

/**
 * A verdict for every rank of the run, in ascending order: planned within the volunteer's limits, with smaller
 * micro-batches and recomputed activations where that is what it takes, then tried on the device; the first that does not
 * fit there ends the trying. Where sparse rounds are to come, they must fit as well, and bytes are those of the round that
 * takes most. Throws GpuError 'device-lost'.
 */
export async function rankVerdicts(model: GpuModel, question: RankQuestion, limits: OwnLimits): Promise<RankVerdict[]> {
  const verdicts: RankVerdict[] = [];
  const budget = limits.maxMemoryBytes ?? Number.POSITIVE_INFINITY;
  const sparse = await sparseNeed(model, question, limits);
  let full = sparse?.refusal ?? null;
  for (const rank of [...question.ranks].sort((a, b) => a - b)) {
    const matrices = adaptedMatrices(model.config, specOf(question, rank));
    const sides = sidesOf(model.config, question, rank);
    const tail = tailOf(question.pruning ?? null, rank);
    const way = { ...question.way, sides, optimiser: question.optimiser ?? ADAMW, ...(tail ? { tail } : {}) };
    const upload = factorBytes(matrices) + HEADER_BYTES;
    const own = beyondOwnLimits(rank, upload, limits);
    const fit =
      own === null && full === null ? await tryFit(model, matrices, question.shape, { ...way, budget }) : null;
    const isPlan = fit !== null && 'total' in fit;
    const refused = fit && !isPlan ? refusalOf(`rank ${rank}`, fit, limits) : null;
    if (fit && !isPlan && fit.refusal) full = refused;
    const refusal = own ?? full ?? refused;
    const memory = isPlan ? fit.total : plannedBytes(model, matrices, question.shape, { ...way, budget });
    const memoryBytes = Math.max(memory, sparse?.memory ?? 0);
    const beside = sides.reduce((sum, side) => sum + factorBytes(side), 0);
    const takes =
      `Rank ${rank} takes ${megabytes(memoryBytes)} of GPU memory and uploads ${megabytes(upload)} a round` +
      (sparse ? `, ${megabytes(sparse.upload)} while updates are sparse` : '') +
      (beside > 0 ? `, and downloads ${megabytes(beside)} at most to train beside.` : '.');
    const uploadBytes = Math.max(upload, sparse?.upload ?? 0);
    verdicts.push({ rank, fits: refusal === null, memoryBytes, uploadBytes, reason: refusal ?? takes });
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
