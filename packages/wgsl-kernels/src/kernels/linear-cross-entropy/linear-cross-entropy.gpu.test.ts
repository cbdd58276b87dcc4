import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, crossEntropy, matmul, matmulMagnitude, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { weightOf } from '../../weights/weight-matrix.ts';
import { linearCrossEntropy } from './linear-cross-entropy.ts';

// Rows, width, vocabulary, rows of a chunk: one chunk, whole chunks, a short last one.
const cases: [rows: number, width: number, vocabulary: number, chunk: number][] = [
  [5, 7, 11, 64],
  [128, 8, 33, 64],
  [131, 16, 65, 64],
];

describe('linear-cross-entropy', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(cases)('%i rows of width %i, vocabulary %i, chunks of %i', async (rows, width, vocabulary, chunk) => {
    const random = randomNumbers(rows);
    const hidden = random.floats(rows * width, 2);
    const head = random.floats(vocabulary * width);
    const labels = random.integers(rows, vocabulary);
    for (let row = 0; row < rows; row += 3) labels[row] = -100;
    const normaliser = Math.fround(1 / rows);
    const inputs = {
      hidden: { shape: [rows, width], data: hidden },
      head: { shape: [vocabulary, width], data: head },
      labels: { shape: [rows], data: labels },
      logits: { shape: [chunk, vocabulary], written: true },
      lossRows: { shape: [rows], written: true },
      normaliser: { shape: [1], data: Float32Array.of(normaliser) },
    };
    const training = await runKernel(gpu, { ...inputs, dhidden: { shape: [rows, width], written: true } }, (tensors) =>
      linearCrossEntropy({ ...tensors, head: weightOf(tensors.head) }),
    );
    const evaluation = await runKernel(gpu, inputs, (tensors) =>
      linearCrossEntropy({ ...tensors, head: weightOf(tensors.head) }),
    );
    expect(evaluation.lossRows).toEqual(training.lossRows);

    const product = { rows, columns: vocabulary, inner: width };
    const logits = matmul('NT', hidden, head, product);
    const expected = crossEntropy(logits, labels, normaliser);
    const magnitude = matmulMagnitude('NT', hidden, head, product);
    // Error of a row's logits, in epsilons; softmax and loss then err by at most twice that, plus what they round
    // themselves: exp by 3 + 2.5 times an argument no longer than twice the largest |logit|, V additions, log and sums.
    const rowError = build(rows, (row) => {
      const errors = Array.from({ length: vocabulary }, (_, v) => at(magnitude, row * vocabulary + v));
      const largest = Math.max(
        ...Array.from({ length: vocabulary }, (_, v) => Math.abs(at(logits, row * vocabulary + v))),
      );
      return 2 * (Math.sqrt(width) / 2 + 1) * Math.max(...errors) + 8 * largest + Math.sqrt(vocabulary) / 2 + 10;
    });
    expectWithin('loss', training.lossRows, expected.loss, (row) =>
      at(labels, row) < 0 ? 0 : EPSILON * at(rowError, row),
    );

    const dlogitsError = build(rows * vocabulary, (i) => {
      const row = Math.floor(i / vocabulary);
      if (at(labels, row) < 0) return 0;
      const probability = at(expected.dlogits, i) / normaliser + (i % vocabulary === at(labels, row) ? 1 : 0);
      return normaliser * (probability * 2 * at(rowError, row) + 1);
    });
    const dhidden = matmul('NN', expected.dlogits, head, { rows, columns: width, inner: vocabulary });
    expectWithin('dhidden', training.dhidden, dhidden, (i) => {
      const row = Math.floor(i / width);
      const bound = sumOf(vocabulary, (v) => {
        const place = row * vocabulary + v;
        const rounding = (Math.sqrt(vocabulary) / 2 + 0.5) * Math.abs(at(expected.dlogits, place));
        return (at(dlogitsError, place) + rounding) * Math.abs(at(head, v * width + (i % width)));
      });
      return EPSILON * bound;
    });
  });

  it('refuses chunks whose views would not be aligned', async () => {
    const inputs = {
      hidden: { shape: [20, 3], data: new Float32Array(60) },
      head: { shape: [5, 3], data: new Float32Array(15) },
      labels: { shape: [20], data: new Int32Array(20) },
      logits: { shape: [10, 5], written: true },
      lossRows: { shape: [20], written: true },
      normaliser: { shape: [1], data: Float32Array.of(1) },
    };
    await expect(
      runKernel(gpu, inputs, (tensors) => linearCrossEntropy({ ...tensors, head: weightOf(tensors.head) })),
    ).rejects.toThrow('a multiple of 64');
  });
});
