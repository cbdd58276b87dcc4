// Sums and norms, in an order that does not depend on timing.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, subTensor, type Tensor } from '../../runtime/tensor.ts';
import code from './reduce.wgsl?raw';

export const reduceShader: ShaderSource = { name: 'reduce', code };

/** Workgroups, and so partial sums, of the first stage of a norm. */
export const NORM_PARTIALS = 64;

/** out [1] (+)= Σ x. Throws GpuError 'shape'. */
export function reduceSum(
  { x, out }: { x: Tensor; out: Tensor },
  { accumulate = false }: { accumulate?: boolean } = {},
): KernelCall[] {
  expectShape('reduce-sum', 'out', out, [1]);
  return [
    {
      name: 'reduce-sum',
      shader: reduceShader,
      entryPoint: 'sum',
      bindings: [x, out],
      uniforms: layOutParams(reduceShader, { count: x.elements, groups: 1, accumulate: accumulate ? 1 : 0 }),
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
  const common = { shader: reduceShader } as const;
  return [
    ...grads.map(
      (grad, i): KernelCall => ({
        name: 'gradient-norm-partials',
        ...common,
        entryPoint: 'sum_squares',
        bindings: [grad, subTensor(partials, i * size, [size])],
        uniforms: layOutParams(reduceShader, { count: grad.elements, groups: NORM_PARTIALS, accumulate: 0 }),
        workgroups: [NORM_PARTIALS, 1, 1],
        flops: 2 * grad.elements,
        bytes: grad.bytes,
      }),
    ),
    {
      name: 'gradient-norm',
      ...common,
      entryPoint: 'norm',
      bindings: [partials, out],
      uniforms: layOutParams(reduceShader, { count: 0, groups: NORM_PARTIALS * grads.length, accumulate: 0 }),
      workgroups: [1, 1, 1],
      flops: 0,
      bytes: partials.bytes,
    },
  ];
}
