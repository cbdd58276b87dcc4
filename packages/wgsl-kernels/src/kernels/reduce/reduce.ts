// Sums and norms, in an order that does not depend on timing.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import code from './reduce.wgsl?raw';

export const reduceShader: ShaderSource = { name: 'reduce', code };

/** Workgroups, and so partial sums, of the first stage of a norm. */
export const NORM_PARTIALS = 64;

/** out [1] = Σ x. Throws GpuError 'shape'. */
export function reduceSum({ x, out }: { x: Tensor; out: Tensor }): KernelCall[] {
  expectShape('reduce-sum', 'out', out, [1]);
  return [
    {
      name: 'reduce-sum',
      shader: reduceShader,
      entryPoint: 'sum',
      bindings: [x, out],
      uniforms: layOutParams(reduceShader, { count: x.elements, groups: 1 }),
      workgroups: [1, 1, 1],
      flops: x.elements,
      bytes: x.bytes,
    },
  ];
}

/** out [2] = (√Σ g², 1 when an element is NaN or infinite else 0). `partials` is scratch [2 · NORM_PARTIALS]. */
export function gradientNorm({ grads, partials, out }: { grads: Tensor; partials: Tensor; out: Tensor }): KernelCall[] {
  expectShape('gradient-norm', 'partials', partials, [2 * NORM_PARTIALS]);
  expectShape('gradient-norm', 'out', out, [2]);
  const uniforms = layOutParams(reduceShader, { count: grads.elements, groups: NORM_PARTIALS });
  const common = { shader: reduceShader, uniforms } as const;
  return [
    {
      name: 'gradient-norm-partials',
      ...common,
      entryPoint: 'sum_squares',
      bindings: [grads, partials],
      workgroups: [NORM_PARTIALS, 1, 1],
      flops: 2 * grads.elements,
      bytes: grads.bytes,
    },
    {
      name: 'gradient-norm',
      ...common,
      entryPoint: 'norm',
      bindings: [partials, out],
      workgroups: [1, 1, 1],
      flops: 0,
      bytes: partials.bytes,
    },
  ];
}
