// Rows to places that data decides: keys and values into a cache.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseShaders, elementwiseVariants, type PlacementOptions, vectorSize } from '../shared/vector.ts';
import code from './copy-rows.wgsl?raw';

export const copyRowsShaders = elementwiseShaders('copy-rows', code);

/** out [M, D]: row rows[n] becomes x [n], for rows u32 [N], all different, and x [N, D]. Throws GpuError 'shape'. */
export function copyRows(
  { x, rows, out }: { x: Tensor; rows: Tensor; out: Tensor },
  options: PlacementOptions = {},
): KernelCall[] {
  const [rowCount, width] = matrixShape('copy-rows', 'x', x);
  const [outRows] = matrixShape('copy-rows', 'out', out);
  expectShape('copy-rows', 'rows', rows, [rowCount]);
  expectShape('copy-rows', 'out', out, [outRows, width]);
  const size = vectorSize(width);
  const vectors = x.elements / size;
  const dispatch = elementwiseVariants(copyRowsShaders, 'main', { size, count: vectors }, options);
  return [
    {
      name: 'copy-rows',
      ...dispatch,
      bindings: [x, rows, out],
      uniforms: layOutParams(dispatch.shader, { count: vectors, width: width / size, outRows }),
      flops: 0,
      bytes: 2 * x.bytes + rows.bytes,
    },
  ];
}
