import { beforeAll, describe, expect, it } from 'vitest';
import type { Gpu } from '../../runtime/device.ts';
import { openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { PLACEMENTS } from '../shared/vector.ts';
import { copyRows } from './copy-rows.ts';

describe.each(PLACEMENTS)('copy-rows, vectors %s', (placement) => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each([
    [1, 1, 1],
    [3, 7, 11],
    [32, 65, 64],
    [66_001, 1, 66_003],
  ])('puts %i rows of %i to their places among %i, and touches no other', async (count, width, outRows) => {
    const random = randomNumbers(width);
    const [x, before] = [random.floats(count * width), random.floats(outRows * width)];
    // From the last row up: all different.
    const rows = Uint32Array.from({ length: count }, (_, i) => outRows - 1 - i);
    const { out } = await runKernel(
      gpu,
      {
        x: { shape: [count, width], data: x },
        rows: { shape: [count], data: rows },
        out: { shape: [outRows, width], data: before, written: true },
      },
      (tensors) => copyRows(tensors, { placement }),
    );
    const expected = before.slice();
    for (const [i, row] of rows.entries()) expected.set(x.subarray(i * width, (i + 1) * width), row * width);
    expect(out).toEqual(expected);
  });

  it('leaves out rows beyond the end, and refuses other shapes', async () => {
    const inputs = (rows: Uint32Array) => ({
      x: { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
      rows: { shape: [rows.length], data: rows },
      out: { shape: [2, 2], data: new Float32Array(4), written: true },
    });
    const { out } = await runKernel(gpu, inputs(Uint32Array.of(1, 2)), (tensors) => copyRows(tensors, { placement }));
    expect([...out]).toEqual([0, 0, 1, 2]);
    await expect(
      runKernel(gpu, inputs(Uint32Array.of(0)), (tensors) => copyRows(tensors, { placement })),
    ).rejects.toMatchObject({ code: 'shape' });
  });
});
