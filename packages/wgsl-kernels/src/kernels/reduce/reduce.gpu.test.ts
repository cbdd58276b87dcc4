import { beforeAll, describe, expect, it } from 'vitest';
import { at, norm, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { gradientNorm, NORM_PARTIALS, reduceSum } from './reduce.ts';

const counts = [1, 63, 64, 65, 4095, 4097, 10_007];

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
    // A running sum of n/64 terms, then six levels of a tree: half an epsilon each, of at most Σ|x|.
    const additions = Math.sqrt(count / 64) + 6;
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
    const relative = (Math.sqrt(all.length / 4096) + 15) / 4 + 3;
    expectWithin('norm', out.slice(0, 1), [norm(all)], () => EPSILON * relative * norm(all));
    expect(out[1]).toBe(0);
    expect((await run(Number.NaN)).out[1]).toBe(1);
  });

  it.each(counts.map((count) => [count]))('norm of %i elements', async (count) => {
    const grads = randomNumbers(count).floats(count, 3);
    const { out } = await normOf(grads);
    const expected = norm(grads);
    // Squares are positive: the sum's relative error is that of its additions (n/4096, two trees of six levels), the root
    // halves it and may err by 3 itself (WGSL: sqrt inherits from 1/inverseSqrt).
    const relative = (Math.sqrt(count / 4096) + 13) / 4 + 3;
    expectWithin('norm', out.slice(0, 1), [expected], () => EPSILON * relative * expected);
    expect(out[1]).toBe(0);
  });

  it.each([
    ['NaN', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
    ['−infinity', Number.NEGATIVE_INFINITY],
    ['a square beyond float32', 1e25],
  ])('raises the flag for %s wherever it stands', async (_, bad) => {
    for (const place of [0, 63, 4096, 5000]) {
      const grads = randomNumbers(place).floats(5001);
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
