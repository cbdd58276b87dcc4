// Cross-entropy with its gradient in place.
import { foldWorkgroups, type KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import code from './cross-entropy.wgsl?raw';

export const crossEntropyShader: ShaderSource = { name: 'cross-entropy', code };

export interface CrossEntropyTensors {
  /** [R, V]; overwritten by its gradient when one is asked for. */
  readonly logits: Tensor;
  /** i32 [R]; −100 is ignored. */
  readonly labels: Tensor;
  /** [R], written: nats, 0 where ignored. */
  readonly lossRows: Tensor;
  /** [1]: what the gradient is multiplied by, usually 1 / number of labelled targets. */
  readonly normaliser: Tensor;
}

/** Loss of every row, and the gradient over the logits unless `gradient` is false. Throws GpuError 'shape'. */
export function crossEntropy(
  { logits, labels, lossRows, normaliser }: CrossEntropyTensors,
  { gradient = true } = {},
): KernelCall[] {
  const [rows, vocabulary] = matrixShape('cross-entropy', 'logits', logits);
  expectShape('cross-entropy', 'labels', labels, [rows]);
  expectShape('cross-entropy', 'lossRows', lossRows, [rows]);
  expectShape('cross-entropy', 'normaliser', normaliser, [1]);
  return [
    {
      name: 'cross-entropy',
      shader: crossEntropyShader,
      entryPoint: 'main',
      bindings: [logits, labels, lossRows, normaliser],
      uniforms: layOutParams(crossEntropyShader, { rows, vocabulary, gradient: gradient ? 1 : 0 }),
      workgroups: foldWorkgroups(rows),
      flops: (gradient ? 8 : 5) * rows * vocabulary,
      bytes: (gradient ? 4 : 2) * logits.bytes,
    },
  ];
}
