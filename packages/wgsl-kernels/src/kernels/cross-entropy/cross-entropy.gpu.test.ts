import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, logSumExp, crossEntropy as reference, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { crossEntropy } from './cross-entropy.ts';

// Around the 32 invocations that share a row, and more rows than one dimension of a dispatch has workgroups.
const LANES = 32;
const shapes: [rows: number, vocabulary: number][] = [
  [1, 1],
  [3, 2],
  [5, 31],
  [2, 32],
  [7, 33],
  [3, 1009],
  [65_541, 3],
];

/** How often the highest logit rises when the invocations' own highest ones are gone through in order. */
function risesOf(row: Float32Array): number {
  let rises = 0;
  let highest = Number.NEGATIVE_INFINITY;
  for (let lane = 0; lane < Math.min(LANES, row.length); lane += 1) {
    const own = Math.max(...row.filter((_, i) => i % LANES === lane));
    if (own > highest) rises += 1;
    highest = Math.max(highest, own);
  }
  return rises;
}

describe('cross-entropy', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  const run = (logits: Float32Array, labels: Int32Array, normaliser: number, gradient: boolean) =>
    runKernel(
      gpu,
      {
        logits: { shape: [labels.length, logits.length / labels.length], data: logits, written: gradient },
        labels: { shape: [labels.length], data: labels },
        lossRows: { shape: [labels.length], written: true },
        normaliser: { shape: [1], data: Float32Array.of(normaliser) },
      },
      (tensors) => crossEntropy(tensors, { gradient }),
    );

  it.each(shapes)('loss and gradient of [%i, %i]', async (rows, vocabulary) => {
    const random = randomNumbers(vocabulary);
    const logits = random.floats(rows * vocabulary, 8);
    const labels = random.integers(rows, vocabulary);
    if (rows > 2) labels[1] = -100;
    labels[rows - 1] = vocabulary - 1;
    const normaliser = Math.fround(1 / 3);
    const expected = reference(logits, labels, normaliser);
    const lse = build(rows, (row) => logSumExp(logits, row * vocabulary, vocabulary));
    const highest = build(rows, (row) => Math.max(...logits.subarray(row * vocabulary, (row + 1) * vocabulary)));
    // exp(x − highest): 3 + 2|argument|, and half of it for the difference.
    const termError = (i: number): number =>
      3 + 2.5 * Math.abs(at(logits, i) - at(highest, Math.floor(i / vocabulary)));
    // The sum weighs these by the probabilities. Each invocation sums up to a highest of its own and is rescaled once, which
    // splits the argument and adds a 3; where the running highest rises, what was summed before is rescaled again.
    const totalError = build(rows, (row) => {
      const weighted = sumOf(vocabulary, (j) => {
        const i = row * vocabulary + j;
        return Math.exp(at(logits, i) - at(lse, row)) * (termError(i) + 3);
      });
      return (
        weighted + 3 * risesOf(logits.subarray(row * vocabulary, (row + 1) * vocabulary)) + Math.sqrt(vocabulary) / 2
      );
    });

    for (const gradient of [true, false]) {
      const result = await run(logits, labels, normaliser, gradient);
      // The error of the sum is relative and so absolute in its logarithm; log errs by 3 units or 2⁻²¹; two additions.
      expectWithin('loss', result.lossRows, expected.loss, (row) => {
        if (at(labels, row) < 0) return 0;
        const logarithm = Math.abs(at(lse, row) - at(highest, row));
        const parts = Math.abs(at(highest, row)) + Math.abs(at(logits, row * vocabulary + at(labels, row)));
        return EPSILON * (at(totalError, row) + 4 + 3 * logarithm + parts);
      });
      if (!gradient) continue;
      // p = exp / total (2.5), minus one at the label (half of at most 1), times the normaliser (half).
      expectWithin('dlogits', result.logits, expected.dlogits, (i) => {
        const row = Math.floor(i / vocabulary);
        if (at(labels, row) < 0) return 0;
        const probability = Math.exp(at(logits, i) - at(lse, row));
        const isLabel = i % vocabulary === at(labels, row) ? 1 : 0;
        return EPSILON * normaliser * (probability * (termError(i) + at(totalError, row) + 3) + isLabel);
      });
    }
  });

  it('gives exactly zero to ignored rows, whatever their logits', async () => {
    const logits = Float32Array.from({ length: 6 }, (_, i) => (i < 3 ? 1e30 : -i));
    const { lossRows, logits: gradient } = await run(logits, Int32Array.of(-100, -100), 0.5, true);
    expect([...lossRows]).toEqual([0, 0]);
    expect([...gradient].map((value) => value + 0)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('holds logits far apart', async () => {
    const { lossRows, logits } = await run(Float32Array.of(-1e4, 1e4, 0), Int32Array.of(0), 1, true);
    expect([...lossRows]).toEqual([2e4]);
    expect([...logits]).toEqual([-1, 1, 0]);
  });

  it('refuses labels of another number of rows', async () => {
    const inputs = {
      logits: { shape: [2, 3], data: new Float32Array(6), written: true },
      labels: { shape: [3], data: new Int32Array(3) },
      lossRows: { shape: [2], written: true },
      normaliser: { shape: [1], data: Float32Array.of(1) },
    };
    await expect(runKernel(gpu, inputs, (tensors) => crossEntropy(tensors))).rejects.toMatchObject({ code: 'shape' });
  });
});
