// Sums of tensors, for residual connections.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseShaders, elementwiseVariants, type PlacementOptions, vectorSize } from '../shared/vector.ts';
import code from './add.wgsl?raw';

export const addShaders = elementwiseShaders('add', code);

/** out = x + y, all of one shape, in three different places. Throws GpuError 'shape'. */
export function add(
  { x, y, out }: { x: Tensor; y: Tensor; out: Tensor },
  options: PlacementOptions = {},
): KernelCall[] {
  expectShape('add', 'y', y, x.shape);
  expectShape('add', 'out', out, x.shape);
  const size = vectorSize(x.elements);
  const count = x.elements / size;
  const dispatch = elementwiseVariants(addShaders, 'main', { size, count }, options);
  return [
    {
      name: 'add',
      ...dispatch,
      bindings: [x, y, out],
      uniforms: layOutParams(dispatch.shader, { count }),
      flops: x.elements,
      bytes: 3 * x.bytes,
    },
  ];
}
