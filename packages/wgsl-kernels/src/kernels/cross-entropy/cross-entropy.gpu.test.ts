import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, logSumExp, crossEntropy as reference, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { crossEntropy } from './cross-entropy.ts';

// Around the vectors that an invocation takes at a time and the 16, 64 or 256 invocations that share a row; vocabularies that are
// multiples of four and others; more rows than one dimension of a dispatch has workgroups.
const LANES = ['one', 'many'] as const;
const shapes: [rows: number, vocabulary: number][] = [
  [1, 1],
  [3, 2],
  [5, 31],
  [2, 32],
  [7, 33],
  [17, 64],
  [3, 260],
  [3, 1009],
  [2, 4096],
  [9, 4100],
  [3, 5003],
  [2, 16_400],
  [65_541, 3],
];
const cases = LANES.flatMap((lanes) => shapes.map(([rows, vocabulary]) => ({ lanes, rows, vocabulary })));

/** How often the highest logit so far can rise for an invocation that goes through its share of a row. */
function risesOf(row: Float32Array, lanes: 'one' | 'many'): number {
  const size = row.length % 4 === 0 ? 4 : 1;
  const vectors = row.length / size;
  const many = vectors < 512 ? 16 : vectors < 4096 ? 64 : 256;
  const sharing = lanes === 'one' ? 1 : many;
  const highest = new Array<number>(sharing).fill(Number.NEGATIVE_INFINITY);
  const rises = new Array<number>(sharing).fill(0);
  for (const [i, value] of row.entries()) {
    const lane = Math.floor(i / size) % sharing;
    if (value <= at(highest, lane)) continue;
    highest[lane] = value;
    rises[lane] = at(rises, lane) + 1;
  }
  return Math.max(...rises);
}

describe('cross-entropy', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  const run = (
    logits: Float32Array,
    labels: Int32Array,
    normaliser: number,
    options: { gradient?: boolean; lanes?: 'one' | 'many' } = {},
  ) =>
    runKernel(
      gpu,
      {
        logits: {
          shape: [labels.length, logits.length / labels.length],
          data: logits,
          written: options.gradient ?? true,
        },
        labels: { shape: [labels.length], data: labels },
        lossRows: { shape: [labels.length], written: true },
        normaliser: { shape: [1], data: Float32Array.of(normaliser) },
      },
      (tensors) => crossEntropy(tensors, options),
    );

  it.each(cases)('loss and gradient of [$rows, $vocabulary], $lanes a row', async ({ lanes, rows, vocabulary }) => {
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
    // The sum weighs these by the probabilities. Where the highest so far rises, what was summed before is rescaled: the
    // arguments of these exponentials and of the term's own add up to its distance from the highest of all, and each adds a
    // 3. Sums of invocations are rescaled twice more. Factors and additions round, too.
    const totalError = build(rows, (row) => {
      const rises = risesOf(logits.subarray(row * vocabulary, (row + 1) * vocabulary), lanes);
      const weighted = sumOf(vocabulary, (j) => {
        const i = row * vocabulary + j;
        return Math.exp(at(logits, i) - at(lse, row)) * (termError(i) + 4 * (rises + 2));
      });
      return weighted + Math.sqrt(vocabulary) / 2;
    });

    for (const gradient of [true, false]) {
      const result = await run(logits, labels, normaliser, { gradient, lanes });
      // The error of the sum is relative and so absolute in its logarithm; log errs by 3 units or 2⁻²¹; two additions.
      expectWithin('loss', result.lossRows, expected.loss, (row) => {
        if (at(labels, row) < 0) return 0;
        const logarithm = Math.abs(at(lse, row) - at(highest, row));
        const parts = Math.abs(at(highest, row)) + Math.abs(at(logits, row * vocabulary + at(labels, row)));
        return EPSILON * (at(totalError, row) + 4 + 3 * logarithm + parts);
      });
      if (!gradient) continue;
      // exp times normaliser / total (2.5 and half), minus the normaliser at the label (half of at most it).
      expectWithin('dlogits', result.logits, expected.dlogits, (i) => {
        const row = Math.floor(i / vocabulary);
        if (at(labels, row) < 0) return 0;
        const probability = Math.exp(at(logits, i) - at(lse, row));
        const isLabel = i % vocabulary === at(labels, row) ? 1 : 0;
        return EPSILON * normaliser * (probability * (termError(i) + at(totalError, row) + 3) + isLabel);
      });
    }
  });

  it.each(LANES)('gives exactly zero to ignored rows, whatever their logits, %s a row', async (lanes) => {
    const logits = Float32Array.from({ length: 6 }, (_, i) => (i < 3 ? 1e30 : -i));
    const { lossRows, logits: gradient } = await run(logits, Int32Array.of(-100, -100), 0.5, { lanes });
    expect([...lossRows]).toEqual([0, 0]);
    expect([...gradient].map((value) => value + 0)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it.each(LANES)('holds logits far apart, %s a row', async (lanes) => {
    const { lossRows, logits } = await run(Float32Array.of(-1e4, 1e4, 0), Int32Array.of(0), 1, { lanes });
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
