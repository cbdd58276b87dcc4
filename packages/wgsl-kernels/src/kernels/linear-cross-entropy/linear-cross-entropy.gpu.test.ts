import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, crossEntropy, matmul, matmulMagnitude, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { largest, randomWeight, readError, runWithWeight } from '../../testing/weights.ts';
import type { WeightType } from '../../weights/encode.ts';
import { weightOf } from '../../weights/weight-matrix.ts';
import { linearCrossEntropy } from './linear-cross-entropy.ts';

interface Case {
  readonly type: WeightType;
  readonly rows: number;
  readonly width: number;
  readonly vocabulary: number;
  /** Rows of a chunk. */
  readonly chunk: number;
  /** Bytes and number of the head's parts. */
  readonly limit?: number;
  readonly parts?: number;
}

// One chunk, whole chunks, a short last one; heads in parts; the vocabulary of Qwen2.
const cases: Case[] = [
  { type: 'f32', rows: 5, width: 7, vocabulary: 11, chunk: 64 },
  { type: 'q8', rows: 128, width: 8, vocabulary: 33, chunk: 64 },
  { type: 'f32', rows: 131, width: 16, vocabulary: 65, chunk: 64, limit: 64 * 64, parts: 2 },
  { type: 'f16', rows: 70, width: 20, vocabulary: 132, chunk: 64, limit: 64 * 128, parts: 3 },
  { type: 'q4', rows: 3, width: 32, vocabulary: 151_936, chunk: 64, limit: 2 ** 21, parts: 3 },
];

describe('linear-cross-entropy', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(cases)('$type: $rows rows of width $width, vocabulary $vocabulary, chunks of $chunk', async (one) => {
    const { type, rows, width, vocabulary, chunk, limit = 2 ** 27, parts = 1 } = one;
    const random = randomNumbers(rows);
    const weight = randomWeight(type, [vocabulary, width], { limit });
    expect(weight.refs.parts.length).toBe(parts);
    const head = weight.values;
    const hidden = random.floats(rows * width, 2);
    const labels = random.integers(rows, vocabulary);
    for (let row = 0; row < rows; row += 3) labels[row] = -100;
    const normaliser = Math.fround(1 / rows);
    const inputs = {
      hidden: { shape: [rows, width], data: hidden },
      labels: { shape: [rows], data: labels },
      logits: { shape: [chunk, vocabulary], written: true },
      lossRows: { shape: [rows], written: true },
      normaliser: { shape: [1], data: Float32Array.of(normaliser) },
    };
    const training = await runWithWeight(
      gpu,
      weight,
      { ...inputs, dhidden: { shape: [rows, width], written: true } },
      (tensors, w) => linearCrossEntropy({ ...tensors, head: w }),
    );
    const evaluation = await runWithWeight(gpu, weight, inputs, (tensors, w) =>
      linearCrossEntropy({ ...tensors, head: w }),
    );
    expect(evaluation.lossRows).toEqual(training.lossRows);

    const product = { rows, columns: vocabulary, inner: width };
    const logits = matmul('NT', hidden, head, product);
    const expected = crossEntropy(logits, labels, normaliser);
    const magnitude = matmulMagnitude('NT', hidden, head, product);
    // Error of a row's logits, in epsilons; softmax and loss then err by at most twice that, plus what they round
    // themselves: exp by 3 + 2.5 times an argument no longer than twice the largest |logit|, V additions, log and sums.
    const rowError = build(rows, (row) => {
      const most = largest(vocabulary, (v) => at(magnitude, row * vocabulary + v));
      const logit = largest(vocabulary, (v) => Math.abs(at(logits, row * vocabulary + v)));
      const product = Math.sqrt(width) / 2 + 1 + readError(type);
      return 2 * product * most + 8 * logit + Math.sqrt(vocabulary) / 2 + 10;
    });
    expectWithin('loss', training.lossRows, expected.loss, (row) =>
      at(labels, row) < 0 ? 0 : EPSILON * at(rowError, row),
    );

    const dlogitsError = build(rows * vocabulary, (i) => {
      const row = Math.floor(i / vocabulary);
      if (at(labels, row) < 0) return 0;
      const isLabel = i % vocabulary === at(labels, row) ? 1 : 0;
      const probability = at(expected.dlogits, i) / normaliser + isLabel;
      return normaliser * (probability * (2 * at(rowError, row) + 1) + isLabel);
    });
    const dhidden = matmul('NN', expected.dlogits, head, { rows, columns: width, inner: vocabulary });
    expectWithin('dhidden', training.dhidden, dhidden, (i) => {
      const row = Math.floor(i / width);
      const bound = sumOf(vocabulary, (v) => {
        const place = row * vocabulary + v;
        const rounding =
          (Math.sqrt(vocabulary) / 2 + parts / 2 + readError(type)) * Math.abs(at(expected.dlogits, place));
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
