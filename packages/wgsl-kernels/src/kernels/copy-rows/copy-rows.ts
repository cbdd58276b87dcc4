// Rows to places that data decides: keys and values into a cache.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './copy-rows.wgsl?raw';

export const copyRowsShader: ShaderSource = { name: 'copy-rows', code };

/** out [M, D]: row rows[n] becomes x [n], for rows u32 [N], all different, and x [N, D]. Throws GpuError 'shape'. */
export function copyRows({ x, rows, out }: { x: Tensor; rows: Tensor; out: Tensor }): KernelCall[] {
  const [count, width] = matrixShape('copy-rows', 'x', x);
  const [outRows] = matrixShape('copy-rows', 'out', out);
  expectShape('copy-rows', 'rows', rows, [count]);
  expectShape('copy-rows', 'out', out, [outRows, width]);
  return [
    {
      name: 'copy-rows',
      shader: copyRowsShader,
      entryPoint: 'main',
      bindings: [x, rows, out],
      uniforms: layOutParams(copyRowsShader, { rows: count, width, outRows }),
      workgroups: elementwiseWorkgroups(x.elements),
      flops: 0,
      bytes: 2 * x.bytes + rows.bytes,
    },
  ];
}
