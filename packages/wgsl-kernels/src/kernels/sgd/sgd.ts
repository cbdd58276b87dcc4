// One step of stochastic gradient descent over a flat tensor of parameters, with momentum where a velocity is given.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseShaders, elementwiseVariants, type PlacementOptions, vectorSize } from '../shared/vector.ts';
import code from './sgd.wgsl?raw';

export const sgdShaders = elementwiseShaders('sgd', code);

/** Elements of the `hyper` tensor. */
export const SGD_HYPER_SIZE = 4;

export interface SgdHyper {
  readonly learningRate: number;
  /** Share of the velocity that is kept; not read where there is no velocity. */
  readonly momentum: number;
  /** Coupled (L2): added to the gradient after clipping, before momentum, as torch.optim.SGD does. */
  readonly weightDecay: number;
  /** Gradient norm to clip to; 0 turns clipping off. */
  readonly maxGradNorm: number;
}

/** The content of the `hyper` tensor of one step. */
export const sgdHyper = ({ learningRate, momentum, weightDecay, maxGradNorm }: SgdHyper): Float32Array =>
  Float32Array.of(learningRate, momentum, weightDecay, maxGradNorm);

export interface SgdTensors {
  /** [n], updated. */
  readonly param: Tensor;
  /** [n] */
  readonly grad: Tensor;
  /** [n], updated: v ← μ·v + g, 0 before the first step. Without it there is no momentum. */
  readonly velocity?: Tensor;
  /** [SGD_HYPER_SIZE], see {@link sgdHyper}. */
  readonly hyper: Tensor;
  /** [2], from gradientNorm. */
  readonly norm: Tensor;
}

/** Throws GpuError 'shape'. */
export function sgd({ param, grad, velocity, hyper, norm }: SgdTensors, options: PlacementOptions = {}): KernelCall[] {
  expectShape('sgd', 'grad', grad, param.shape);
  if (velocity) expectShape('sgd', 'velocity', velocity, param.shape);
  expectShape('sgd', 'hyper', hyper, [SGD_HYPER_SIZE]);
  expectShape('sgd', 'norm', norm, [2]);
  const size = vectorSize(param.elements);
  const count = param.elements / size;
  const entryPoint = velocity ? 'with_momentum' : 'plain';
  const dispatch = elementwiseVariants(sgdShaders, entryPoint, { size, count }, options);
  return [
    {
      name: velocity ? 'sgd-momentum' : 'sgd',
      ...dispatch,
      bindings: [param, grad, hyper, norm, ...(velocity ? [velocity] : [])],
      uniforms: layOutParams(dispatch.shader, { count }),
      flops: (velocity ? 7 : 5) * param.elements,
      bytes: (velocity ? 5 : 3) * param.bytes,
    },
  ];
}
