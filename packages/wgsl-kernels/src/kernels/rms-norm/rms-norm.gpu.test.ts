import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, rmsNorm, rmsNormGradient, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { rmsNormBackward, rmsNormForward } from './rms-norm.ts';

const EPS = 1e-5;
const LANES = ['one', 'many'] as const;
// Around the invocations that share a row, the rows that share a workgroup and the four rows of an invocation; widths that
// are multiples of four and others; rows of heads, whose queries and keys some models norm one by one.
const shapes: [rows: number, width: number][] = [
  [1, 1],
  [3, 7],
  [4, 8],
  [5, 9],
  [7, 64],
  [4, 1009],
  [3 * 9, 10],
  [5 * 7, 65],
  [2 * 16, 80],
  [3 * 5, 127],
  [130, 128],
  [9, 516],
  [3, 2052],
];
const cases = LANES.flatMap((lanes) => shapes.map(([rows, width]) => ({ lanes, rows, width })));

/**
 * Relative error of rstd in epsilons: the sum of squares has √D/2 (all terms are positive), 1/D, its product and ε half of
 * one each, all halved by the root; inverseSqrt may err by 2 (WGSL, accuracy of built-ins).
 */
const rstdError = (width: number): number => (Math.sqrt(width) / 2 + 1.5) / 2 + 2;

describe('rms-norm', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(cases)('forward [$rows, $width], $lanes a row', async ({ lanes, rows, width }) => {
    const random = randomNumbers(width);
    const x = random.floats(rows * width, 2);
    const weight = random.floats(width);
    const result = await runKernel(
      gpu,
      {
        x: { shape: [rows, width], data: x },
        weight: { shape: [width], data: weight },
        y: { shape: [rows, width], written: true },
        rstd: { shape: [rows], written: true },
      },
      (tensors) => rmsNormForward(tensors, { eps: EPS, lanes }),
    );
    const expected = rmsNorm(x, weight, EPS);
    const relative = rstdError(width);
    expectWithin('rstd', result.rstd, expected.rstd, (i) => EPSILON * relative * at(expected.rstd, i));
    // Two multiplications more.
    expectWithin('y', result.y, expected.y, (i) => EPSILON * (relative + 1) * Math.abs(at(expected.y, i)));
  });

  it('norms a row of zeros and a row of tiny numbers with ε alone', async () => {
    const { y, rstd } = await runKernel(
      gpu,
      {
        x: { shape: [2, 3], data: Float32Array.of(0, 0, 0, 1e-20, 1e-20, -1e-20) },
        weight: { shape: [3], data: Float32Array.of(1, 2, 3) },
        y: { shape: [2, 3], written: true },
        rstd: { shape: [2], written: true },
      },
      (tensors) => rmsNormForward(tensors, { eps: EPS }),
    );
    expect([...y.slice(0, 3)]).toEqual([0, 0, 0]);
    expectWithin('rstd', rstd, [1 / Math.sqrt(EPS), 1 / Math.sqrt(EPS)], () => 4 * EPSILON * 317);
  });

  it.each(cases)('backward [$rows, $width], $lanes a row, replacing and adding', async ({ lanes, rows, width }) => {
    const random = randomNumbers(width + 1);
    const x = random.floats(rows * width, 2);
    const weight = random.floats(width);
    const dy = random.floats(rows * width);
    const before = random.floats(rows * width);
    const rstd = Float32Array.from(rmsNorm(x, weight, EPS).rstd);
    const gradient = rmsNormGradient(x, weight, rstd, dy);
    // Σ|g·x| of each row, g = dy · weight.
    const magnitude = build(rows, (row) =>
      sumOf(width, (i) => Math.abs(at(dy, row * width + i) * at(weight, i) * at(x, row * width + i))),
    );
    for (const accumulate of [false, true]) {
      const { dx } = await runKernel(
        gpu,
        {
          x: { shape: [rows, width], data: x },
          weight: { shape: [width], data: weight },
          rstd: { shape: [rows], data: rstd },
          dy: { shape: [rows, width], data: dy },
          dx: { shape: [rows, width], written: true, ...(accumulate ? { data: before } : {}) },
        },
        (tensors) => rmsNormBackward(tensors, { accumulate, lanes }),
      );
      const old = (i: number): number => (accumulate ? at(before, i) : 0);
      // dx = rstd·g − x·rstd³·mean: g and its two products are three roundings. The sum behind the mean errs by
      // √D/2 + 1 of its magnitude, the rest of that term by the division (2.5) and five roundings.
      expectWithin(
        `dx accumulate=${accumulate}`,
        dx,
        gradient.map((value, i) => value + old(i)),
        (i) => {
          const row = Math.floor(i / width);
          const scale = at(rstd, row);
          const first = scale * Math.abs(at(dy, i) * at(weight, i % width));
          const second = (Math.abs(at(x, i)) * scale ** 3 * at(magnitude, row)) / width;
          return EPSILON * (2 * first + (Math.sqrt(width) / 2 + 6) * second + 0.5 * Math.abs(old(i)));
        },
      );
    }
  });

  it('refuses a weight of another width', async () => {
    const inputs = {
      x: { shape: [2, 3], data: new Float32Array(6) },
      weight: { shape: [2], data: new Float32Array(2) },
      y: { shape: [2, 3], written: true },
      rstd: { shape: [2], written: true },
    };
    await expect(runKernel(gpu, inputs, (tensors) => rmsNormForward(tensors, { eps: EPS }))).rejects.toMatchObject({
      code: 'shape',
      message: 'rms-norm-forward: weight (weight) is [2] where [3] is needed.',
    });
  });
});
