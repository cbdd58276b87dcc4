// Token ids to their embeddings. The table is frozen, so there is no backward pass.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './embedding.wgsl?raw';

export const embeddingShader: ShaderSource = { name: 'embedding', code };

/** out [N, D] = rows of table [V, D] at ids u32 [N]. Throws GpuError 'shape'. */
export function embeddingForward({ ids, table, out }: { ids: Tensor; table: Tensor; out: Tensor }): KernelCall[] {
  const [rows, width] = matrixShape('embedding', 'out', out);
  const [vocabulary] = matrixShape('embedding', 'table', table);
  expectShape('embedding', 'table', table, [vocabulary, width]);
  expectShape('embedding', 'ids', ids, [rows]);
  return [
    {
      name: 'embedding',
      shader: embeddingShader,
      entryPoint: 'main',
      bindings: [ids, table, out],
      uniforms: layOutParams(embeddingShader, { rows, width, vocabulary }),
      workgroups: elementwiseWorkgroups(rows * width),
      flops: 0,
      bytes: ids.bytes + 2 * out.bytes,
    },
  ];
}
