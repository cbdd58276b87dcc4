// Memory is computed, not discovered: the exact bytes of everything a step will create, before it creates anything; and
// the choice of micro-batch and checkpointing that fits a budget.
import type { ModelConfig } from '@weft/formats';
import { GpuError, type TensorRef, uniformBytes, type WeightType } from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { MOMENTS } from '../optim/optimiser.ts';
import { planWeights, weightsIn } from './gpu-model.ts';
import { planStep, READBACK_DEPTH, REPORT_ELEMENTS, type StepOptions, type StepShape } from './layout.ts';
import { stepParts } from './step.ts';

/** Exact bytes by purpose. Their sum is what the device is asked for. */
export interface MemoryPlan {
  readonly microBatch: number;
  readonly checkpoint: boolean;
  readonly weights: number;
  /** Everything that lives within a step only: activations, their gradients, a chunk of logits; it shares this memory. */
  readonly activations: number;
  /** Factors of the adapter, or elements of a sparse one and their places, and of frozen ones beside it. */
  readonly adapter: number;
  /** Gradients of the factors. */
  readonly gradients: number;
  /** What the optimiser keeps of every trained factor: AdamW's moments, SGD's velocity, nothing without momentum. */
  readonly optimiser: number;
  /** Batch, rotary tables, loss by row, report. */
  readonly inputs: number;
  readonly uniforms: number;
  readonly readback: number;
  readonly total: number;
  /** Floating-point operations of one step. */
  readonly flops: number;
  /** Dispatches of one step. */
  readonly dispatches: number;
}

export interface MemoryQuestion extends Omit<StepOptions, 'training'> {
  /** How the base model's matrices are kept; float32 unless given. */
  readonly weights?: WeightType;
}

const sum = (refs: readonly TensorRef[]): number =>
  refs.reduce((bytes, ref) => bytes + Math.ceil(ref.bytes / 256) * 256, 0);

/** What a training step on this model takes. Throws GpuError 'shape' when a tensor that cannot be cut is beyond `slabLimit`. */
export function planMemory(
  config: ModelConfig,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  question: MemoryQuestion = {},
): MemoryPlan {
  const weights = planWeights(config, question.weights ?? 'f32', question.slabLimit);
  const layout = planStep(config, weightsIn(weights, weights.plan.describe()), matrices, shape, {
    ...question,
    training: true,
  });
  const { factors, sides, plan, microBatch, checkpoint, micro, update } = layout;
  const adapter = sum([factors, ...sides].flatMap((each) => [...each.tensors('params'), ...each.elementTensors]));
  const gradients = sum(factors.tensors('grads'));
  const optimiser = sum(MOMENTS.flatMap((moment) => factors.tensors(moment)));
  const activations = plan.sharedBytes;
  const uniforms = stepParts(layout).reduce((bytes, calls) => bytes + uniformBytes(calls), 0);
  const readback = 4 * REPORT_ELEMENTS * READBACK_DEPTH;
  const microBatches = shape.batch / microBatch;
  return {
    microBatch,
    checkpoint,
    weights: weights.plan.bytes,
    activations,
    adapter,
    gradients,
    optimiser,
    inputs: plan.bytes - activations - adapter - gradients - optimiser,
    uniforms,
    readback,
    total: weights.plan.bytes + plan.bytes + uniforms + readback,
    flops:
      microBatches * micro.reduce((total, call) => total + call.flops, 0) +
      update.reduce((total, call) => total + call.flops, 0),
    dispatches: microBatches * micro.length + update.length,
  };
}

/** Tokens that keep a GPU busy: smaller micro-batches are tried after recomputing activations is. */
const BUSY_TOKENS = 256;

/** Ways to run a step, the fastest first. What is fixed in the question stays. */
export function stepVariants(
  { batch, sequence }: StepShape,
  fixed: Pick<StepOptions, 'microBatch' | 'checkpoint'> = {},
): { microBatch: number; checkpoint: boolean }[] {
  const divisors = Array.from({ length: batch }, (_, i) => batch - i).filter((rows) => batch % rows === 0);
  const sizes = fixed.microBatch === undefined ? divisors : [fixed.microBatch];
  const isBusy = (microBatch: number) => microBatch === batch || microBatch * sequence >= BUSY_TOKENS;
  const all = [
    ...sizes.filter(isBusy).map((microBatch) => ({ microBatch, checkpoint: false })),
    ...sizes.filter(isBusy).map((microBatch) => ({ microBatch, checkpoint: true })),
    ...sizes
      .filter((size) => !isBusy(size))
      .flatMap((microBatch) => [false, true].map((checkpoint) => ({ microBatch, checkpoint }))),
  ];
  return all.filter(({ checkpoint }) => fixed.checkpoint === undefined || checkpoint === fixed.checkpoint);
}

/**
 * The fastest way to run a step within `budget` bytes, or the smallest one where none fits. Ways with a tensor that
 * `slabLimit` forbids are passed over; throws GpuError 'shape' where that is all of them.
 */
export function fitMemory(
  config: ModelConfig,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  question: MemoryQuestion & { budget: number },
): { plan: MemoryPlan; fits: boolean } {
  let smallest: MemoryPlan | null = null;
  let refusal: GpuError | null = null;
  for (const variant of stepVariants(shape, question)) {
    try {
      const plan = planMemory(config, matrices, shape, { ...question, ...variant });
      if (plan.total <= question.budget) return { plan, fits: true };
      if (!smallest || plan.total < smallest.total) smallest = plan;
    } catch (error) {
      if (!(error instanceof GpuError && error.code === 'shape')) throw error;
      refusal = error;
    }
  }
  if (smallest) return { plan: smallest, fits: false };
  throw refusal ?? new TrainerError('bad-settings', `A batch of ${shape.batch} rows cannot be cut as asked.`);
}
