import { beforeAll, describe, expect, it } from 'vitest';
import { at, rope } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { ropeBackward, ropeForward, ropeTables } from './rope.ts';

const shapes: [batch: number, sequence: number, heads: number, headSize: number][] = [
  [1, 1, 1, 2],
  [2, 5, 3, 6],
  [3, 7, 2, 8],
  [1, 17, 4, 64],
];

describe('rope', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(shapes)(
    'turns and turns back: batch %i, sequence %i, %i heads of %i',
    async (batch, sequence, heads, headSize) => {
      const sizes = { heads, headSize, sequence };
      const width = heads * headSize;
      const { cos, sin } = ropeTables(sequence, headSize, 10_000);
      const data = randomNumbers(headSize).floats(batch * sequence * width);
      const table = [sequence, headSize / 2];
      for (const [direction, kernel] of [[1, ropeForward] as const, [-1, ropeBackward] as const]) {
        const { x } = await runKernel(
          gpu,
          {
            x: { shape: [batch * sequence, width], data, written: true },
            cos: { shape: table, data: cos },
            sin: { shape: table, data: sin },
          },
          (tensors) => kernel(tensors, sizes),
        );
        // Two products and their sum: each product half an epsilon, the sum half an epsilon of at most both.
        expectWithin(`direction ${direction}`, x, rope(data, cos, sin, sizes, direction), (i) => {
          const partner = (i % headSize) + headSize / 2 < headSize ? i + headSize / 2 : i - headSize / 2;
          return EPSILON * (Math.abs(at(data, i)) + Math.abs(at(data, partner)));
        });
      }
    },
  );

  it('leaves position 0 as it is', async () => {
    const { cos, sin } = ropeTables(1, 4, 10_000);
    const data = Float32Array.of(1, 2, 3, 4);
    const inputs = {
      x: { shape: [1, 4], data, written: true },
      cos: { shape: [1, 2], data: cos },
      sin: { shape: [1, 2], data: sin },
    };
    const { x } = await runKernel(gpu, inputs, (tensors) =>
      ropeForward(tensors, { heads: 1, headSize: 4, sequence: 1 }),
    );
    expect(x).toEqual(data);
  });

  it('makes tables rounded once from float64', () => {
    const { cos, sin } = ropeTables(3000, 64, 500_000);
    const angle = 2999 * 500_000 ** (-62 / 64);
    expect(cos[2999 * 32 + 31]).toBe(Math.fround(Math.cos(angle)));
    expect(sin[2999 * 32]).toBe(Math.fround(Math.sin(2999)));
  });

  it('refuses an odd head, which has no pairs', async () => {
    const inputs = {
      x: { shape: [1, 3], data: new Float32Array(3), written: true },
      cos: { shape: [1, 1], data: new Float32Array(1) },
      sin: { shape: [1, 1], data: new Float32Array(1) },
    };
    await expect(
      runKernel(gpu, inputs, (tensors) => ropeForward(tensors, { heads: 1, headSize: 3, sequence: 1 })),
    ).rejects.toMatchObject({ code: 'shape' });
  });
});
