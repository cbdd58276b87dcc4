// Gradients of the penalty on the last directions of a pair of LoRA factors, which lets a client prune them.
import type { KernelCall } from '../../runtime/call.ts';
import { GpuError } from '../../runtime/errors.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import code from './tail-penalty.wgsl?raw';

export const tailPenaltyShader: ShaderSource = { name: 'tail-penalty', code };

export interface TailPenaltyTensors {
  /** [r, in] */
  readonly a: Tensor;
  /** [out, r] */
  readonly b: Tensor;
  /** As `a` and `b`; the gradients are added. */
  readonly da: Tensor;
  readonly db: Tensor;
}

/**
 * Adds the gradient of λ·‖B[:, kept:]‖·‖A[kept:, :]‖ (Frobenius norms; Cho et al. 2024, arXiv 2401.06432, §3.2) to `da` and
 * `db`; `kept` directions come first and are left alone. Throws GpuError 'shape'.
 */
export function tailPenalty(
  { a, b, da, db }: TailPenaltyTensors,
  { kept, lambda }: { readonly kept: number; readonly lambda: number },
): KernelCall[] {
  const [rank, columns] = matrixShape('tail-penalty', 'a', a);
  const [rows] = matrixShape('tail-penalty', 'b', b);
  expectShape('tail-penalty', 'b', b, [rows, rank]);
  expectShape('tail-penalty', 'da', da, a.shape);
  expectShape('tail-penalty', 'db', db, b.shape);
  if (!(Number.isInteger(kept) && kept >= 0 && kept < rank))
    throw new GpuError('shape', `tail-penalty: ${kept} of ${rank} directions kept leave no tail.`);
  const elements = (rank - kept) * (columns + rows);
  return [
    {
      name: 'tail-penalty',
      shader: tailPenaltyShader,
      entryPoint: 'main',
      bindings: [a, b, da, db],
      uniforms: layOutParams(tailPenaltyShader, {
        firstA: kept * columns,
        endA: rank * columns,
        ...{ kept, rank, rows, lambda },
      }),
      workgroups: [1, 1, 1],
      flops: 4 * elements,
      bytes: 4 * 4 * elements,
    },
  ];
}
