// AdamW (Loshchilov and Hutter 2019) in float64, in the order of torch.optim.AdamW, with torch's clip_grad_norm_ before.
import { at, build, type Numbers, sumOf } from './numbers.ts';

export interface AdamwSettings {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** 1 for the first step. */
  readonly step: number;
  /** Gradient norm to clip to; 0 turns clipping off. */
  readonly maxGradNorm: number;
}

export interface AdamwState {
  readonly param: Float64Array;
  readonly m: Float64Array;
  readonly v: Float64Array;
}

/** √Σ g² */
export const norm = (grad: Numbers): number => Math.sqrt(sumOf(grad.length, (i) => at(grad, i) ** 2));

/** The state after one step. */
export function adamw(
  { param, m, v }: { readonly param: Numbers; readonly m: Numbers; readonly v: Numbers },
  grad: Numbers,
  settings: AdamwSettings,
): AdamwState {
  const { learningRate, beta1, beta2, eps, weightDecay, step, maxGradNorm } = settings;
  const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (norm(grad) + 1e-6)) : 1;
  const nextM = build(param.length, (i) => beta1 * at(m, i) + (1 - beta1) * clip * at(grad, i));
  const nextV = build(param.length, (i) => beta2 * at(v, i) + (1 - beta2) * (clip * at(grad, i)) ** 2);
  const next = build(param.length, (i) => {
    const first = at(nextM, i) / (1 - beta1 ** step);
    const second = at(nextV, i) / (1 - beta2 ** step);
    const decayed = at(param, i) * (1 - learningRate * weightDecay);
    return decayed - (learningRate * first) / (Math.sqrt(second) + eps);
  });
  return { param: next, m: nextM, v: nextV };
}
