// Memory is computed, not discovered: the exact bytes of everything a plan will create, before it creates anything.
import type { ModelConfig } from '@weft/formats';
import { type KernelCall, type TensorRef, uniformBytes } from '@weft/wgsl-kernels';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { planWeights } from './gpu-model.ts';
import { type Layout, planLayout, READBACK_DEPTH, REPORT_ELEMENTS, type StepShape } from './layout.ts';
import { stepCalls } from './step.ts';

/** Exact bytes by purpose. Their sum is what the device is asked for. */
export interface MemoryPlan {
  readonly weights: number;
  readonly activations: number;
  readonly logits: number;
  readonly gradients: number;
  readonly adapter: number;
  readonly optimiser: number;
  readonly uniforms: number;
  readonly readback: number;
  readonly total: number;
  /** Floating-point operations of one step. */
  readonly flops: number;
  /** Dispatches of one step. */
  readonly dispatches: number;
}

const sum = (refs: readonly (TensorRef | null)[]): number =>
  refs.reduce((bytes, ref) => bytes + (ref ? Math.ceil(ref.bytes / 256) * 256 : 0), 0);

/** What a training step on this model takes. Throws GpuError 'shape' when a tensor is beyond `slabLimit` bytes. */
export function planMemory(
  config: ModelConfig,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  slabLimit?: number,
): MemoryPlan {
  const weights = planWeights(config, slabLimit);
  const layout = planLayout(config, matrices, shape, {
    training: true,
    ...(slabLimit === undefined ? {} : { slabLimit }),
  });
  const described = weights.plan.describe();
  const calls = stepCalls(config, {
    layout,
    source: layout.plan.describe(),
    weight: (name) => {
      const ref = weights.refs.get(name);
      if (!ref) throw new RangeError(`The model has no tensor ${name}.`);
      return described.get(ref);
    },
  });
  return summarise(layout, weights.plan.bytes, calls);
}

function summarise(layout: Layout, weights: number, calls: readonly KernelCall[]): MemoryPlan {
  const { forward, backward } = layout;
  const adapter = sum([forward.params]);
  const optimiser = backward ? sum([backward.m, backward.v, backward.hyper, backward.partials]) : 0;
  const gradients = backward ? sum(Object.values(backward)) - optimiser : 0;
  const logits = sum([forward.logits]);
  const uniforms = uniformBytes(calls);
  const readback = 4 * REPORT_ELEMENTS * READBACK_DEPTH;
  const activations = layout.plan.bytes - adapter - optimiser - gradients - logits;
  return {
    weights,
    activations,
    logits,
    gradients,
    adapter,
    optimiser,
    uniforms,
    readback,
    total: weights + layout.plan.bytes + uniforms + readback,
    flops: calls.reduce((total, call) => total + call.flops, 0),
    dispatches: calls.length,
  };
}
