// Cross-entropy with its gradient in place.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams, paramOffset } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { type RowOptions, rowDispatch, rowVariants } from '../shared/rows.ts';
import { vectorShaders, vectorSize } from '../shared/vector.ts';
import code from './cross-entropy.wgsl?raw';

export const crossEntropyShaders = vectorShaders('cross-entropy', code);

/** Invocations of a workgroup where many share a row. */
const INVOCATIONS = 256;

/** How many share a row of so many vectors, so that each has eight and more in all but short rows. */
const manyLanes = (vectors: number): number => (vectors < 512 ? 16 : vectors < 4096 ? 64 : 256);

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
  { gradient = true, lanes }: { gradient?: boolean } & RowOptions = {},
): KernelCall[] {
  const [rows, vocabulary] = matrixShape('cross-entropy', 'logits', logits);
  expectShape('cross-entropy', 'labels', labels, [rows]);
  expectShape('cross-entropy', 'lossRows', lossRows, [rows]);
  expectShape('cross-entropy', 'normaliser', normaliser, [1]);
  const size = vectorSize(vocabulary);
  const shader = crossEntropyShaders[size];
  const vectors = vocabulary / size;
  const dispatch = rowDispatch(rows, { vectors, each: 1, lanes: manyLanes(vectors), invocations: INVOCATIONS });
  return [
    {
      name: 'cross-entropy',
      ...rowVariants(shader, dispatch, (each) => each, lanes),
      bindings: [logits, labels, lossRows, normaliser],
      uniforms: layOutParams(shader, {
        ...{ rows, vectors, lanes: dispatch.lanes },
        ...{ gradient: gradient ? 1 : 0, firstGroup: 0 },
      }),
      firstGroup: paramOffset(shader, 'firstGroup'),
      flops: (gradient ? 8 : 5) * rows * vocabulary,
      // Twice read and once written: a row fits no memory that is nearer.
      bytes: (gradient ? 3 : 1) * logits.bytes,
      exps: (gradient ? 2 : 1) * rows * vocabulary,
    },
  ];
}
