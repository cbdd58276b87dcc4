// Sums of tensors, for residual connections.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { vectorShaders, vectorSize, vectorWorkgroups } from '../shared/vector.ts';
import code from './add.wgsl?raw';

export const addShaders = vectorShaders('add', code);

/** out = x + y, all of one shape, in three different places. Throws GpuError 'shape'. */
export function add({ x, y, out }: { x: Tensor; y: Tensor; out: Tensor }): KernelCall[] {
  expectShape('add', 'y', y, x.shape);
  expectShape('add', 'out', out, x.shape);
  const size = vectorSize(x.elements);
  const shader = addShaders[size];
  const count = x.elements / size;
  return [
    {
      name: 'add',
      shader,
      entryPoint: 'main',
      bindings: [x, y, out],
      uniforms: layOutParams(shader, { count }),
      workgroups: vectorWorkgroups(count),
      flops: x.elements,
      bytes: 3 * x.bytes,
    },
  ];
}
