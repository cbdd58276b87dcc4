// Sums of tensors, for residual connections.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './add.wgsl?raw';

export const addShader: ShaderSource = { name: 'add', code };

/** out = x + y, all of one shape, in three different places. Throws GpuError 'shape'. */
export function add({ x, y, out }: { x: Tensor; y: Tensor; out: Tensor }): KernelCall[] {
  expectShape('add', 'y', y, x.shape);
  expectShape('add', 'out', out, x.shape);
  return [
    {
      name: 'add',
      shader: addShader,
      entryPoint: 'main',
      bindings: [x, y, out],
      uniforms: layOutParams(addShader, { count: x.elements }),
      workgroups: elementwiseWorkgroups(x.elements),
      flops: x.elements,
      bytes: 3 * x.bytes,
    },
  ];
}
