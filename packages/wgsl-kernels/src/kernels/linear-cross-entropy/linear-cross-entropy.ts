// The language-model head and its loss in chunks of rows, so that all logits never exist at once.
import type { KernelCall } from '../../runtime/call.ts';
import { expectShape, matrixShape, subTensor, type Tensor } from '../../runtime/tensor.ts';
import type { WeightMatrix } from '../../weights/weight-matrix.ts';
import { crossEntropy } from '../cross-entropy/cross-entropy.ts';
import { weightNN, weightNT } from '../matmul/weight-matmul.ts';

export interface LinearCrossEntropyTensors {
  /** [N, D], normed. */
  readonly hidden: Tensor;
  /** [V, D]; each of its parts writes its columns of the logits. */
  readonly head: WeightMatrix;
  /** i32 [N]; −100 is ignored. */
  readonly labels: Tensor;
  /** Scratch [chunk, V]; its first size is the number of rows of a chunk, a multiple of 64. */
  readonly logits: Tensor;
  /** [N], written. */
  readonly lossRows: Tensor;
  /** [1] */
  readonly normaliser: Tensor;
  /** [N, D], written; left out when only the loss is wanted. */
  readonly dhidden?: Tensor;
}

/**
 * Loss of every row of hidden·headᵀ, and its gradient to hidden. Rows per chunk follow from `logits`; chunks start at
 * multiples of 64 rows so that views of every tensor stay aligned. Throws GpuError 'shape'.
 */
export function linearCrossEntropy(tensors: LinearCrossEntropyTensors): KernelCall[] {
  const { hidden, head, labels, logits, lossRows, normaliser, dhidden } = tensors;
  const [rows, width] = matrixShape('linear-cross-entropy', 'hidden', hidden);
  const vocabulary = head.rows;
  const [chunk] = matrixShape('linear-cross-entropy', 'logits', logits);
  expectShape('linear-cross-entropy', 'logits', logits, [chunk, vocabulary]);
  expectShape('linear-cross-entropy', 'labels', labels, [rows]);
  expectShape('linear-cross-entropy', 'lossRows', lossRows, [rows]);
  const calls: KernelCall[] = [];
  for (let first = 0; first < rows; first += chunk) {
    const count = Math.min(chunk, rows - first);
    const part = subTensor(hidden, first * width, [count, width]);
    const scores = subTensor(logits, 0, [count, vocabulary]);
    const loss = subTensor(lossRows, first, [count]);
    calls.push(
      ...weightNT({ x: part, w: head, y: scores }),
      ...crossEntropy(
        { logits: scores, labels: subTensor(labels, first, [count]), lossRows: loss, normaliser },
        { gradient: dhidden !== undefined },
      ),
    );
    if (dhidden) {
      calls.push(...weightNN({ dy: scores, w: head, dx: subTensor(dhidden, first * width, [count, width]) }));
    }
  }
  return calls;
}
