import { beforeAll, describe, expect, it } from 'vitest';
import { at, dropoutMask, dropout as reference } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { dropout } from './dropout.ts';

describe('dropout', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  const run = (x: Float32Array, seed: [number, number], rate: number, salt: number, before: Float32Array | null) =>
    runKernel(
      gpu,
      {
        x: { shape: [x.length], data: x },
        seed: { shape: [2], data: Uint32Array.from(seed) },
        out: { shape: [x.length], written: true, ...(before ? { data: before } : {}) },
      },
      (tensors) => dropout(tensors, { rate, salt, accumulate: before !== null }),
    );

  it.each([
    [1, 0.5],
    [63, 0.1],
    [513, 0.25],
    [4099, 0.9],
    [70_001, 0.05],
  ])('drops the elements of its hash: %i of them at rate %f', async (count, rate) => {
    const random = randomNumbers(count);
    const [x, before] = [random.floats(count), random.floats(count)];
    const seed: [number, number] = [0xdead_beef, count];
    const expected = reference(x, { rate, seed, salt: 7 });
    const plain = await run(x, seed, rate, 7, null);
    // The factor 1/(1 − rate) is rounded, and the product.
    expectWithin('out', plain.out, expected, (i) => EPSILON * Math.abs(at(expected, i)));
    const added = await run(x, seed, rate, 7, before);
    const sum = expected.map((value, i) => value + at(before, i));
    expectWithin('out', added.out, sum, (i) => EPSILON * (1.5 * Math.abs(at(expected, i)) + Math.abs(at(before, i))));
  });

  it('changes nothing at rate 0, and refuses rates that are none', async () => {
    const x = randomNumbers(1).floats(65);
    expect((await run(x, [1, 2], 0, 3, null)).out).toEqual(x);
    for (const rate of [1, -0.1, Number.NaN])
      await expect(run(x, [1, 2], rate, 3, null)).rejects.toMatchObject({ code: 'shape' });
  });
});

describe('masks', () => {
  const count = 40_000;
  const mask = (rate: number, seed: [number, number], salt: number) => dropoutMask(count, { rate, seed, salt });
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;

  it('drop at the rate asked', () => {
    for (const rate of [0.05, 0.5, 0.9]) {
      // Five standard deviations of the mean of a Bernoulli variable.
      const bound = 5 * Math.sqrt((rate * (1 - rate)) / count);
      expect(Math.abs(mean(mask(rate, [1, 2], 3)) - (1 - rate))).toBeLessThan(bound);
    }
  });

  it('are independent between seeds, salts and neighbouring elements', () => {
    const base = mask(0.5, [1, 2], 3);
    const others = [mask(0.5, [2, 2], 3), mask(0.5, [1, 3], 3), mask(0.5, [1, 2], 4)];
    const shifted = [1, 2, 64, 576].map((by) => Float64Array.from(base, (_, i) => at(base, (i + by) % count)));
    for (const other of [...others, ...shifted]) {
      const agree = mean(base.map((value, i) => (value === at(other, i) ? 1 : 0)));
      expect(Math.abs(agree - 0.5)).toBeLessThan((5 * 0.5) / Math.sqrt(count));
    }
  });
});
