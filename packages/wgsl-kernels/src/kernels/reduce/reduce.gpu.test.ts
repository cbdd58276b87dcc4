import { beforeAll, describe, expect, it } from 'vitest';
import { at, norm, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { gradientNorm, NORM_PARTIALS, reduceSum } from './reduce.ts';

/**
 * Relative error of a norm in epsilons. Squares are positive: their sum's relative error is that of its additions, which are
 * n/4096 of an invocation and four in a vector, 64 partial sums of each of `tensors`, and 64 sums of these; half an epsilon
 * each, as random errors add up. The root halves it and may err by 3 itself (WGSL: sqrt inherits from 1/inverseSqrt).
 */
const normError = (count: number, tensors: number): number =>
  (Math.sqrt(count / NORM_PARTIALS + 4 + 64 * tensors) + Math.sqrt(64)) / 4 + 3;

const counts = [1, 63, 64, 65, 4095, 4097, 10_007, 70_004];

describe('reduce', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(counts.map((count) => [count]))('sum of %i elements', async (count) => {
    const x = randomNumbers(count).floats(count);
    const { out } = await runKernel(
      gpu,
      { x: { shape: [count], data: x }, out: { shape: [1], written: true } },
      reduceSum,
    );
    const magnitude = sumOf(count, (i) => Math.abs(at(x, i)));
    // A running sum of n/64 terms, then one of 64: half an epsilon for each addition, of at most Σ|x|, as random errors add up.
    const additions = Math.sqrt(count / 64) + Math.sqrt(64);
    expectWithin('sum', out, [sumOf(count, (i) => at(x, i))], () => (EPSILON * additions * magnitude) / 2);
  });

  it('adds to what is there when asked', async () => {
    const { out } = await runKernel(
      gpu,
      {
        x: { shape: [3], data: Float32Array.of(1, 2, 4) },
        out: { shape: [1], data: Float32Array.of(8), written: true },
      },
      (tensors) => reduceSum(tensors, { accumulate: true }),
    );
    expect([...out]).toEqual([15]);
  });

  const normOf = (grads: Float32Array) =>
    runKernel(
      gpu,
      {
        grads: { shape: [grads.length], data: grads },
        partials: { shape: [2 * NORM_PARTIALS], written: true },
        out: { shape: [2], written: true },
      },
      ({ grads: all, ...rest }) => gradientNorm({ grads: [all], ...rest }),
    );

  it('takes several tensors for one, and sees what is not finite in any of them', async () => {
    const parts = [65, 4097, 3].map((count) => randomNumbers(count).floats(count, 3));
    const run = (bad: number) =>
      runKernel(
        gpu,
        {
          a: { shape: [65], data: parts[0] ?? new Float32Array() },
          b: { shape: [4097], data: parts[1] ?? new Float32Array() },
          c: { shape: [3], data: (parts[2] ?? new Float32Array()).map((value, i) => (i === 2 ? bad : value)) },
          partials: { shape: [2 * NORM_PARTIALS * 3], written: true },
          out: { shape: [2], written: true },
        },
        ({ a, b, c, ...rest }) => gradientNorm({ grads: [a, b, c], ...rest }),
      );
    const { out } = await run(0.5);
    const all = parts.flatMap((part, i) => [...part].map((value, j) => (i === 2 && j === 2 ? 0.5 : value)));
    const relative = normError(all.length, 3);
    expectWithin('norm', out.slice(0, 1), [norm(all)], () => EPSILON * relative * norm(all));
    expect(out[1]).toBe(0);
    expect((await run(Number.NaN)).out[1]).toBe(1);
  });

  it.each(counts.map((count) => [count]))('norm of %i elements', async (count) => {
    const grads = randomNumbers(count).floats(count, 3);
    const { out } = await normOf(grads);
    const expected = norm(grads);
    const relative = normError(count, 1);
    expectWithin('norm', out.slice(0, 1), [expected], () => EPSILON * relative * expected);
    expect(out[1]).toBe(0);
  });

  it.each([
    ['NaN', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
    ['−infinity', Number.NEGATIVE_INFINITY],
    ['a square beyond float32', 1e25],
  ])('raises the flag for %s wherever it stands', async (_, bad) => {
    for (const [place, count] of [
      [0, 5001],
      [63, 5001],
      [4096, 5001],
      [5000, 5001],
      [16_385, 16_388],
      [70_001, 70_004],
    ] as const) {
      const grads = randomNumbers(place).floats(count);
      grads[place] = bad;
      expect((await normOf(grads)).out[1]).toBe(1);
    }
  });

  it('is not alarmed by large numbers that fit', async () => {
    const { out } = await normOf(new Float32Array(100).fill(1e18));
    expect(out[1]).toBe(0);
    expect(out[0]).toBeGreaterThan(0.999e19);
  });
});
