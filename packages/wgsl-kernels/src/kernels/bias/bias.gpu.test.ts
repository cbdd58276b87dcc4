import { beforeAll, describe, expect, it } from 'vitest';
import { at } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { biasAdd } from './bias.ts';

describe('bias', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each([
    [1, 1],
    [3, 7],
    [5, 64],
    [17, 513],
    [70_001, 3],
  ])('is added to each of %i rows of %i as float32 does', async (rows, width) => {
    const random = randomNumbers(width);
    const [before, bias] = [random.floats(rows * width), random.floats(width, 10)];
    const { y } = await runKernel(
      gpu,
      { y: { shape: [rows, width], data: before, written: true }, bias: { shape: [width], data: bias } },
      biasAdd,
    );
    // One correctly rounded addition: nothing is left to a tolerance.
    expect(y).toEqual(before.map((value, i) => value + at(bias, i % width)));
  });

  it('refuses a bias of another width', async () => {
    const inputs = {
      y: { shape: [2, 3], data: new Float32Array(6), written: true },
      bias: { shape: [2], data: new Float32Array(2) },
    };
    await expect(runKernel(gpu, inputs, biasAdd)).rejects.toThrow('bias-add: bias (bias) is [2] where [3] is needed.');
  });
});
