// Sums and norms, in an order that does not depend on timing.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, subTensor, type Tensor } from '../../runtime/tensor.ts';
import { vectorShaders, vectorSize } from '../shared/vector.ts';
import code from './reduce.wgsl?raw';

export const reduceShaders = vectorShaders('reduce', code);

/** Invocations, and so partial sums, of the first stage of a norm. */
export const NORM_PARTIALS = 4096;
const INVOCATIONS = 64;

/** out [1] (+)= Σ x. Throws GpuError 'shape'. */
export function reduceSum(
  { x, out }: { x: Tensor; out: Tensor },
  { accumulate = false }: { accumulate?: boolean } = {},
): KernelCall[] {
  expectShape('reduce-sum', 'out', out, [1]);
  return [
    {
      name: 'reduce-sum',
      shader: reduceShaders[4],
      entryPoint: 'sum',
      bindings: [x, out],
      uniforms: layOutParams(reduceShaders[4], { count: x.elements, accumulate: accumulate ? 1 : 0 }),
      workgroups: [1, 1, 1],
      flops: x.elements,
      bytes: x.bytes,
    },
  ];
}

/**
 * out [2] = (√Σ g² over all of `grads`, 1 when an element is NaN or infinite else 0). `partials` is scratch
 * [2 · NORM_PARTIALS · number of grads]. Throws GpuError 'shape'.
 */
export function gradientNorm({
  grads,
  partials,
  out,
}: {
  grads: readonly Tensor[];
  partials: Tensor;
  out: Tensor;
}): KernelCall[] {
  const size = 2 * NORM_PARTIALS;
  expectShape('gradient-norm', 'partials', partials, [size * grads.length]);
  expectShape('gradient-norm', 'out', out, [2]);
  return [
    ...grads.map((grad, i): KernelCall => {
      const vector = vectorSize(grad.elements);
      const shader = reduceShaders[vector];
      return {
        name: 'gradient-norm-partials',
        shader,
        entryPoint: 'sum_squares',
        bindings: [grad, subTensor(partials, i * size, [size])],
        bindingSlots: [3, 2],
        uniforms: layOutParams(shader, { count: grad.elements / vector, accumulate: 0 }),
        workgroups: [NORM_PARTIALS / INVOCATIONS, 1, 1],
        flops: 2 * grad.elements,
        bytes: grad.bytes + 4 * size,
      };
    }),
    {
      name: 'gradient-norm',
      shader: reduceShaders[4],
      entryPoint: 'norm',
      bindings: [partials, out],
      uniforms: layOutParams(reduceShaders[4], { count: NORM_PARTIALS * grads.length, accumulate: 0 }),
      workgroups: [1, 1, 1],
      flops: 0,
      bytes: partials.bytes,
    },
  ];
}
