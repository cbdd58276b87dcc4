// Token ids to their embeddings. The table is frozen, so there is no backward pass.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { rowStride, type WeightType } from '../../weights/encode.ts';
import { weightBindings, weightElementCode } from '../../weights/shaders.ts';
import type { WeightMatrix } from '../../weights/weight-matrix.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './embedding.wgsl?raw';

const shaderFor = (type: WeightType): ShaderSource => ({
  name: `embedding-${type}`,
  code: code + weightElementCode[type],
});

export const embeddingShaders: Readonly<Record<WeightType, ShaderSource>> = {
  f32: shaderFor('f32'),
  f16: shaderFor('f16'),
  q8: shaderFor('q8'),
  q4: shaderFor('q4'),
};

/** out [N, D] = rows of table [V, D] at ids u32 [N]; a dispatch for every part of the table. Throws GpuError 'shape'. */
export function embeddingForward({ ids, table, out }: { ids: Tensor; table: WeightMatrix; out: Tensor }): KernelCall[] {
  const [rows] = matrixShape('embedding', 'out', out);
  expectShape('embedding', 'out', out, [rows, table.columns]);
  expectShape('embedding', 'ids', ids, [rows]);
  const shader = embeddingShaders[table.type];
  const width = table.columns;
  return table.parts.map((part) => ({
    name: 'embedding',
    shader,
    entryPoint: 'main',
    ...weightBindings(ids, part, out),
    uniforms: layOutParams(shader, {
      rows,
      width,
      vocabulary: table.rows,
      firstRow: part.firstRow,
      partRows: part.rows,
      stride: rowStride(table.type, width),
    }),
    workgroups: elementwiseWorkgroups(rows * width),
    flops: 0,
    bytes: ids.bytes + (2 * out.bytes) / table.parts.length,
  }));
}
