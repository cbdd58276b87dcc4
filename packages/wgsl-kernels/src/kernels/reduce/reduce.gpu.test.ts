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

  const normOf = (grads: Float32Array) =>
    runKernel(
      gpu,
      {
        grads: { shape: [grads.length], data: grads },
        partials: { shape: [2 * NORM_PARTIALS], written: true },
        out: { shape: [2], written: true },
      },
      gradientNorm,
    );

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
