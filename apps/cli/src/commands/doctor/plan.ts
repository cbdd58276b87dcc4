// The memory plan of training a model, rank by rank: by arithmetic from its configuration alone, or tried on the GPU.
import { type ModelConfig, PROJECTIONS, parameterCount } from '@weft/formats';
import {
  type GpuModel,
  type MemoryPlan,
  NO_LIMITS,
  plannedMemory,
  type RankQuestion,
  rankVerdicts,
  type StepShape,
} from '@weft/trainer';
import { GpuError, type WeightType } from '@weft/wgsl-kernels';
import { formatBytes, table } from '../../command.ts';
import { type MemoryOptions, stepLimits } from '../../options.ts';

/** What a run asks for unless it says otherwise. */
const RANKS = [1, 2, 4, 8, 16, 32, 64] as const;
const BATCH = 8;
const SEQUENCE = 128;

export interface PlanOptions extends MemoryOptions {
  readonly batch?: number;
  readonly seq?: number;
  readonly rank?: readonly number[];
}

export interface ModelPlan {
  readonly parameters: number;
  readonly shape: StepShape;
  readonly weights: WeightType;
  /** Bytes; null where nothing was asked. */
  readonly budget: number | null;
  /** By rank; ranks of which no step can be planned are left out. */
  readonly memory: readonly { readonly rank: number; readonly fits: boolean; readonly memory: MemoryPlan }[];
  readonly verdicts: readonly { readonly rank: number; readonly fits: boolean; readonly reason: string }[];
  /** null when no rank fits. */
  readonly rank: number | null;
  /** Whether the ranks were allocated on the GPU, or only computed. */
  readonly tried: boolean;
}

/** Rows and tokens of a step as asked for. */
export function shapeOf({ maxPositions }: ModelConfig, options: PlanOptions): StepShape {
  return { batch: options.batch ?? BATCH, sequence: options.seq ?? Math.min(SEQUENCE, maxPositions) };
}

/** How a step is to be computed, and within which budget, as asked for. */
export const wayOf = (options: PlanOptions, { batch }: StepShape) => stepLimits(options, batch);

function questionOf(config: ModelConfig, options: PlanOptions): RankQuestion & { budget: number } {
  const shape = shapeOf(config, options);
  const { budget, ...way } = wayOf(options, shape);
  // No matrix of the model has a higher rank than its hidden size.
  const ranks = options.rank ?? RANKS.filter((rank) => rank <= config.hiddenSize);
  return { ranks, alphaPerRank: 2, targets: PROJECTIONS, shape, way, budget };
}

type Planned = ReturnType<typeof plannedMemory>[number];

/** The plan of every rank, or why there is none. */
function planRanks(config: ModelConfig, question: RankQuestion & { budget: number }, weights: WeightType) {
  return question.ranks.map((rank): { rank: number; plan: Planned | null; reason: string } => {
    try {
      const [plan] = plannedMemory({ config }, { ...question, ranks: [rank] }, { weights, budget: question.budget });
      if (!plan) throw new RangeError(`Rank ${rank} was not planned.`);
      const takes = formatBytes(plan.memory.total);
      const reason = plan.fits
        ? `Rank ${rank} takes ${takes} of GPU memory.`
        : `Rank ${rank} takes ${takes} at least; --budget is ${formatBytes(question.budget)}.`;
      return { rank, plan, reason };
    } catch (error) {
      if (!(error instanceof GpuError && error.code === 'shape')) throw error;
      return { rank, plan: null, reason: `Rank ${rank} cannot be planned: ${error.message}` };
    }
  });
}

function summary(config: ModelConfig, options: PlanOptions, question: RankQuestion & { budget: number }) {
  const planned = planRanks(config, question, options.weights);
  return {
    parameters: parameterCount(config),
    shape: question.shape,
    weights: options.weights,
    budget: Number.isFinite(question.budget) ? question.budget : null,
    memory: planned.flatMap(({ plan }) => (plan ? [plan] : [])),
    verdicts: planned.map(({ rank, plan, reason }) => ({ rank, fits: plan?.fits ?? false, reason })),
  };
}

const largestFitting = (verdicts: ModelPlan['verdicts']): number | null =>
  verdicts.filter(({ fits }) => fits).reduce<number | null>((largest, { rank }) => Math.max(largest ?? 0, rank), null);

/** By arithmetic, without a GPU and without weights. */
export function planByConfig(config: ModelConfig, options: PlanOptions): ModelPlan {
  const found = summary(config, options, questionOf(config, options));
  return { ...found, rank: largestFitting(found.verdicts), tried: false };
}

/** The ranks really allocated, smallest first. Throws GpuError 'device-lost'. */
export async function planOnGpu(model: GpuModel, options: PlanOptions): Promise<ModelPlan> {
  const question = questionOf(model.config, options);
  const maxMemoryBytes = Number.isFinite(question.budget) ? question.budget : null;
  const verdicts = await rankVerdicts(model, question, { ...NO_LIMITS, maxMemoryBytes });
  return {
    ...summary(model.config, options, question),
    verdicts,
    rank: largestFitting(verdicts),
    tried: true,
  };
}

export function describePlan(name: string, plan: ModelPlan): string[] {
  const { parameters, shape, weights, memory, verdicts, rank, tried } = plan;
  const heading = [
    ...['rank', 'total', 'weights', 'activations', 'adapter', 'gradients', 'optimiser', 'inputs', 'rest'],
    ...['rows at once', 'activations are'],
  ];
  const rows = memory.map(({ rank: each, memory: own }) => [
    each,
    ...[own.total, own.weights, own.activations, own.adapter, own.gradients, own.optimiser, own.inputs].map(
      formatBytes,
    ),
    formatBytes(own.uniforms + own.readback),
    own.microBatch,
    own.checkpoint ? 'computed again' : 'kept',
  ]);
  return [
    `Model ${name}: ${parameters.toLocaleString('en')} parameters, kept as ${weights}. GPU memory of a training step of ${shape.batch} rows of ${shape.sequence} tokens:`,
    '',
    table([heading, ...rows]),
    '',
    'Adapter, gradients and optimiser are those of LoRA on all projections; the rest is uniforms and readback.',
    '',
    ...verdicts.map(({ fits, reason }) => `${fits ? '✓' : '✗'} ${reason}`),
    '',
    rank === null
      ? 'No rank fits. Train a smaller model or shorter rows, or keep the weights smaller with --weights q8 or q4.'
      : tried
        ? `This device would train at rank ${rank}.`
        : `By arithmetic alone, rank ${rank} is the largest that fits.`,
  ];
}
