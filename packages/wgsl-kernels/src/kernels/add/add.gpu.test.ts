import { beforeAll, describe, expect, it } from 'vitest';
import { at } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { PLACEMENTS } from '../shared/vector.ts';
import { add } from './add.ts';

describe.each(PLACEMENTS)('add, vectors %s', (placement) => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each([[1], [63], [65], [255], [257], [1028], [4092], [4099]])(
    'adds %i elements as float32 does',
    async (count) => {
      const random = randomNumbers(count);
      const x = random.floats(count);
      const y = random.floats(count, 100);
      const { out } = await runKernel(
        gpu,
        { x: { shape: [count], data: x }, y: { shape: [count], data: y }, out: { shape: [count], written: true } },
        (tensors) => add(tensors, { placement }),
      );
      // One correctly rounded addition: nothing is left to a tolerance.
      expect(out).toEqual(x.map((value, i) => value + at(y, i)));
    },
  );

  it('refuses different shapes', async () => {
    const inputs = {
      x: { shape: [2, 3], data: new Float32Array(6) },
      y: { shape: [3, 2], data: new Float32Array(6) },
      out: { shape: [2, 3], written: true },
    };
    await expect(runKernel(gpu, inputs, (tensors) => add(tensors, { placement }))).rejects.toThrow(
      'add: y (y) is [3,2] where [2,3] is needed.',
    );
  });
});
