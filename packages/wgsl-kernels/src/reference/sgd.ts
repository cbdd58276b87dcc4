// Stochastic gradient descent in float64, in the order of torch.optim.SGD (dampening 0, no Nesterov), with torch's
// clip_grad_norm_ before. Weight decay is coupled: it is part of the gradient, and so of momentum.
import { norm } from './adamw.ts';
import { at, build, type Numbers } from './numbers.ts';

export interface SgdSettings {
  readonly learningRate: number;
  /** 0: none, and the velocity is the gradient of this step. */
  readonly momentum: number;
  readonly weightDecay: number;
  /** Gradient norm to clip to; 0 turns clipping off. */
  readonly maxGradNorm: number;
}

export interface SgdState {
  readonly param: Float64Array;
  readonly velocity: Float64Array;
}

/** The state after one step; `velocity` is 0 before the first. `gradNorm`: of all parameters, where these are some of them. */
export function sgd(
  { param, velocity }: { readonly param: Numbers; readonly velocity: Numbers },
  grad: Numbers,
  { learningRate, momentum, weightDecay, maxGradNorm }: SgdSettings,
  gradNorm = norm(grad),
): SgdState {
  const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (gradNorm + 1e-6)) : 1;
  const next = build(
    param.length,
    (i) => momentum * at(velocity, i) + (clip * at(grad, i) + weightDecay * at(param, i)),
  );
  return { param: build(param.length, (i) => at(param, i) - learningRate * at(next, i)), velocity: next };
}
