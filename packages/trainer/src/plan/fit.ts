// From a budget to a step that runs: the fastest way that is planned within it and that the device really allocates. A
// refusal by the device means "does not fit": the next smaller way is tried, and a refusal of all is an answer, not an error.
import { GpuError } from '@weft/wgsl-kernels';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { type GpuModel, slabLimit } from './gpu-model.ts';
import { planStep, type StepOptions, type StepShape } from './layout.ts';
import { type MemoryPlan, planMemory, stepVariants } from './memory.ts';
import { StepGraph } from './step.ts';

export interface FitRequest extends Omit<StepOptions, 'training' | 'slabLimit'> {
  /** Bytes for everything, weights included. */
  readonly budget: number;
}

/** Why nothing fits. */
export interface Unfit {
  /** Bytes of the smallest way; null where no way can be planned on this device. */
  readonly smallest: number | null;
  /** What the device said when it refused a way that was within the budget; null where the budget refused all. */
  readonly refusal: GpuError | null;
}

const isRefusal = (error: unknown): error is GpuError =>
  error instanceof GpuError && (error.code === 'out-of-memory' || error.code === 'shape');

/** Tries `make` on the ways to run a step, the fastest first, until one is made. Rethrows what is no refusal. */
async function firstThatFits<T>(
  model: GpuModel,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  request: FitRequest,
  make: (plan: MemoryPlan) => Promise<T>,
): Promise<{ made: T; plan: MemoryPlan } | Unfit> {
  let smallest: number | null = null;
  let refusal: GpuError | null = null;
  const limits = { weights: model.type, slabLimit: slabLimit(model.gpu) };
  for (const variant of stepVariants(shape, request)) {
    try {
      const plan = planMemory(model.config, matrices, shape, { ...request, ...limits, ...variant });
      smallest = Math.min(smallest ?? plan.total, plan.total);
      if (plan.total <= request.budget) return { made: await make(plan), plan };
    } catch (error) {
      if (!isRefusal(error)) throw error;
      refusal = error;
    }
  }
  return { smallest, refusal };
}

/** A step graph in the fastest way that fits. Throws GpuError 'device-lost' or 'shader'. */
export function createFittingGraph(
  model: GpuModel,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  request: FitRequest & { onCompile?: (done: number, total: number) => void },
): Promise<{ made: StepGraph; plan: MemoryPlan } | Unfit> {
  return firstThatFits(model, matrices, shape, request, ({ microBatch, checkpoint }) =>
    StepGraph.create(model, matrices, shape, { ...request, training: true, microBatch, checkpoint }),
  );
}

/** The same, but only allocated, touched and freed. */
export async function tryFit(
  model: GpuModel,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  request: FitRequest,
): Promise<MemoryPlan | Unfit> {
  const found = await firstThatFits(model, matrices, shape, request, async ({ microBatch, checkpoint }) => {
    const options = { ...request, training: true, microBatch, checkpoint, slabLimit: slabLimit(model.gpu) };
    const { plan } = planStep(model.config, model, matrices, shape, options);
    (await plan.allocate(model.gpu)).destroy();
  });
  return 'plan' in found ? found.plan : found;
}
