// Rows to places that data decides: keys and values into a cache.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { vectorShaders, vectorSize, vectorWorkgroups } from '../shared/vector.ts';
import code from './copy-rows.wgsl?raw';

export const copyRowsShaders = vectorShaders('copy-rows', code);

/** out [M, D]: row rows[n] becomes x [n], for rows u32 [N], all different, and x [N, D]. Throws GpuError 'shape'. */
export function copyRows({ x, rows, out }: { x: Tensor; rows: Tensor; out: Tensor }): KernelCall[] {
  const [count, width] = matrixShape('copy-rows', 'x', x);
  const [outRows] = matrixShape('copy-rows', 'out', out);
  expectShape('copy-rows', 'rows', rows, [count]);
  expectShape('copy-rows', 'out', out, [outRows, width]);
  const size = vectorSize(width);
  const shader = copyRowsShaders[size];
  return [
    {
      name: 'copy-rows',
      shader,
      entryPoint: 'main',
      bindings: [x, rows, out],
      uniforms: layOutParams(shader, { count: x.elements / size, width: width / size, outRows }),
      workgroups: vectorWorkgroups(x.elements / size),
      flops: 0,
      bytes: 2 * x.bytes + rows.bytes,
    },
  ];
}
