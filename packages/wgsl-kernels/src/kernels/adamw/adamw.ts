// One AdamW step over a flat tensor of parameters.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseShaders, elementwiseVariants, type PlacementOptions, vectorSize } from '../shared/vector.ts';
import code from './adamw.wgsl?raw';

export const adamwShaders = elementwiseShaders('adamw', code);

/** Elements of the `hyper` tensor. */
export const ADAMW_HYPER_SIZE = 10;

export interface AdamwHyper {
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

/**
 * The content of the `hyper` tensor of one step. Bias corrections and 1 − β are computed in float64 and rounded once: in
 * float32, 1 − 0.999 is off by 1e-5.
 */
export function adamwHyper({
  learningRate,
  beta1,
  beta2,
  eps,
  weightDecay,
  step,
  maxGradNorm,
}: AdamwHyper): Float32Array {
  return Float32Array.of(
    learningRate,
    beta1,
    beta2,
    eps,
    weightDecay,
    1 / (1 - beta1 ** step),
    1 / (1 - beta2 ** step),
    maxGradNorm,
    1 - beta1,
    1 - beta2,
  );
}

export interface AdamwTensors {
  /** [n], updated. */
  readonly param: Tensor;
  /** [n] */
  readonly grad: Tensor;
  /** [n], updated: first moment. */
  readonly m: Tensor;
  /** [n], updated: second moment. */
  readonly v: Tensor;
  /** [ADAMW_HYPER_SIZE], see {@link adamwHyper}. */
  readonly hyper: Tensor;
  /** [2], from gradientNorm. */
  readonly norm: Tensor;
}

/** Throws GpuError 'shape'. */
export function adamw({ param, grad, m, v, hyper, norm }: AdamwTensors, options: PlacementOptions = {}): KernelCall[] {
  for (const [name, tensor] of Object.entries({ grad, m, v })) expectShape('adamw', name, tensor, param.shape);
  expectShape('adamw', 'hyper', hyper, [ADAMW_HYPER_SIZE]);
  expectShape('adamw', 'norm', norm, [2]);
  const size = vectorSize(param.elements);
  const count = param.elements / size;
  const dispatch = elementwiseVariants(adamwShaders, 'main', { size, count }, options);
  return [
    {
      name: 'adamw',
      ...dispatch,
      bindings: [param, grad, m, v, hyper, norm],
      uniforms: layOutParams(dispatch.shader, { count }),
      flops: 14 * param.elements,
      bytes: 7 * param.bytes,
    },
  ];
}
