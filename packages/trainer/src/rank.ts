// Which rank this device can carry, and why not more: planned bytes against the volunteer's own limits and the device's,
// then really allocated, smallest first, and touched. A refusal by the device means "does not fit", never an error.
import type { Projection } from '@weft/formats';
import { GpuError } from '@weft/wgsl-kernels';
import { TrainerError } from './errors.ts';
import { type AdapterSpec, adaptedMatrices, factorBytes, plainSpec } from './lora/adapter.ts';
import type { BaseModel } from './model/base-model.ts';
import { type GpuModel, slabLimit } from './plan/gpu-model.ts';
import { planLayout, type StepShape } from './plan/layout.ts';
import { type MemoryPlan, planMemory } from './plan/memory.ts';

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
}

/** Header of an upload, generously. */
const HEADER_BYTES = 16_384;

/** MB are 10⁶ bytes. Small uploads keep a second digit, so that ranks can be told apart. */
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;

const specOf = ({ alphaPerRank, targets }: RankQuestion, rank: number): AdapterSpec =>
  plainSpec(rank, alphaPerRank * rank, targets);

/** Why a rank is out of the volunteer's own limits, or null. */
function beyondOwnLimits(rank: number, memory: MemoryPlan, upload: number, limits: OwnLimits): string | null {
  if (limits.maxRank !== null && rank > limits.maxRank) return `Rank ${rank} is above your limit of ${limits.maxRank}.`;
  if (limits.maxMemoryBytes !== null && memory.total > limits.maxMemoryBytes) {
    return `Rank ${rank} would need ${megabytes(memory.total)}; your limit is ${megabytes(limits.maxMemoryBytes)}.`;
  }
  if (limits.maxUploadBytes !== null && upload > limits.maxUploadBytes) {
    return `Rank ${rank} would upload ${megabytes(upload)} a round; your limit is ${megabytes(limits.maxUploadBytes)}.`;
  }
  return null;
}

/** Allocates what a step at this rank takes beside the weights, touches it, and frees it. */
async function fitsDevice(model: GpuModel, question: RankQuestion, rank: number): Promise<string | null> {
  try {
    const matrices = adaptedMatrices(model.config, specOf(question, rank));
    const layout = planLayout(model.config, matrices, question.shape, {
      training: true,
      slabLimit: slabLimit(model.gpu),
    });
    (await layout.plan.allocate(model.gpu)).destroy();
    return null;
  } catch (error) {
    if (error instanceof GpuError && error.code === 'out-of-memory') return `The GPU has no room for rank ${rank}.`;
    if (error instanceof GpuError && error.code === 'shape')
      return `Rank ${rank} is beyond this GPU’s limits: ${error.message}`;
    throw error;
  }
}

/**
 * A verdict for every rank of the run, in the order asked. Ranks are tried on the device in ascending order; the first that
 * does not fit ends the trying. Throws GpuError 'device-lost'.
 */
export async function rankVerdicts(model: GpuModel, question: RankQuestion, limits: OwnLimits): Promise<RankVerdict[]> {
  const verdicts: RankVerdict[] = [];
  let full: string | null = null;
  for (const rank of [...question.ranks].sort((a, b) => a - b)) {
    const matrices = adaptedMatrices(model.config, specOf(question, rank));
    // Arithmetic alone, whatever the device's largest binding: that limit is the device's word, below.
    const memory = planMemory(model.config, matrices, question.shape, Number.MAX_SAFE_INTEGER);
    const uploadBytes = factorBytes(matrices) + HEADER_BYTES;
    const own = beyondOwnLimits(rank, memory, uploadBytes, limits);
    if (own === null && full === null) full = await fitsDevice(model, question, rank);
    const refusal = own ?? full;
    const takes = `Rank ${rank} takes ${megabytes(memory.total)} of GPU memory and uploads ${megabytes(uploadBytes)} a round.`;
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

/** Planned bytes of every rank without a GPU, for a model that is not loaded on one. */
export function plannedMemory(model: BaseModel, question: RankQuestion): { rank: number; memory: MemoryPlan }[] {
  return question.ranks.map((rank) => ({
    rank,
    memory: planMemory(model.config, adaptedMatrices(model.config, specOf(question, rank)), question.shape),
  }));
}
