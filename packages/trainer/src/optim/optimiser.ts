// The rule by which a step changes the factors, and what it keeps from step to step: AdamW two moments a parameter, SGD with
// momentum one velocity, plain SGD nothing. Which rule it is belongs to the plan of a step, because memory depends on it.
import {
  ADAMW_HYPER_SIZE,
  adamw,
  adamwHyper,
  type KernelCall,
  SGD_HYPER_SIZE,
  sgd,
  sgdHyper,
  type TensorRef,
} from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';

export const OPTIMISERS = ['adamw', 'sgd'] as const;
export type OptimiserName = (typeof OPTIMISERS)[number];

/**
 * `adamw` as torch.optim.AdamW: its weight decay is decoupled. `sgd` as torch.optim.SGD, dampening 0, no Nesterov: its
 * weight decay is coupled, that is added to the clipped gradient, and so part of momentum.
 */
export type Optimiser =
  | { readonly name: 'adamw'; readonly beta1: number; readonly beta2: number; readonly eps: number }
  | { readonly name: 'sgd'; readonly momentum: number };

export const ADAMW: Optimiser = { name: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8 };

/** What an optimiser keeps of each parameter: AdamW's first moment or SGD's velocity, and AdamW's second moment. */
export type Moment = 'm' | 'v';

export const MOMENTS = ['m', 'v'] as const satisfies readonly Moment[];

/** The optimiser that a run's or a command's settings name. Throws TrainerError 'bad-settings'. */
export function optimiserOf({
  optimiser = 'adamw',
  momentum = 0,
}: {
  readonly optimiser?: OptimiserName;
  readonly momentum?: number;
}): Optimiser {
  if (!(momentum >= 0 && momentum < 1))
    throw new TrainerError(
      'bad-settings',
      `A momentum of ${momentum} never forgets; choose one of at least 0 and below 1.`,
    );
  if (optimiser === 'sgd') return { name: 'sgd', momentum };
  if (momentum > 0)
    throw new TrainerError(
      'bad-settings',
      'Momentum is a setting of SGD; AdamW has its own. Leave it out, or choose SGD.',
    );
  return ADAMW;
}

export function momentsOf(optimiser: Optimiser): readonly Moment[] {
  if (optimiser.name === 'adamw') return MOMENTS;
  return optimiser.momentum > 0 ? ['m'] : [];
}

/** Elements of the tensor that {@link hyperOf} fills. */
export const hyperSizeOf = ({ name }: Optimiser): number => (name === 'adamw' ? ADAMW_HYPER_SIZE : SGD_HYPER_SIZE);

export interface StepHyper {
  readonly learningRate: number;
  readonly weightDecay: number;
  /** Gradient norm to clip to; 0 turns clipping off. */
  readonly maxGradNorm: number;
  /** 1 for the first step. */
  readonly step: number;
}

/** What changes from step to step, as the kernels read it. */
export const hyperOf = (optimiser: Optimiser, hyper: StepHyper): Float32Array =>
  optimiser.name === 'adamw' ? adamwHyper({ ...hyper, ...optimiser }) : sgdHyper({ ...hyper, ...optimiser });

export interface Trained {
  /** [n] each. */
  readonly param: TensorRef;
  readonly grad: TensorRef;
  readonly moments: ReadonlyMap<Moment, TensorRef>;
}

/** One step on a flat tensor of factors. Throws TrainerError 'bad-settings' where a moment it needs was not planned. */
export function updateCalls(
  optimiser: Optimiser,
  { param, grad, moments }: Trained,
  { hyper, norm }: { readonly hyper: TensorRef; readonly norm: TensorRef },
): KernelCall[] {
  const m = moments.get('m');
  const v = moments.get('v');
  if (optimiser.name === 'sgd') return sgd({ param, grad, ...(m ? { velocity: m } : {}), hyper, norm });
  if (!m || !v) throw new TrainerError('bad-settings', 'AdamW was planned without its moments.');
  return adamw({ param, grad, m, v, hyper, norm });
}
