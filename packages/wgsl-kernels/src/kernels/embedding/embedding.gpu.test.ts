import { beforeAll, describe, expect, it } from 'vitest';
import { at } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { embeddingForward } from './embedding.ts';

describe('embedding', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each([
    [1, 1, 1],
    [5, 3, 7],
    [67, 33, 64],
    [64, 512, 65],
  ])('copies rows: %i ids, %i entries, width %i', async (rows, vocabulary, width) => {
    const random = randomNumbers(rows);
    const ids = Uint32Array.from(random.integers(rows, vocabulary));
    ids[0] = vocabulary - 1;
    const table = random.floats(vocabulary * width);
    const { out } = await runKernel(
      gpu,
      {
        ids: { shape: [rows], data: ids },
        table: { shape: [vocabulary, width], data: table },
        out: { shape: [rows, width], written: true },
      },
      embeddingForward,
    );
    const expected = Float32Array.from({ length: rows * width }, (_, i) =>
      at(table, at(ids, Math.floor(i / width)) * width + (i % width)),
    );
    expect(out).toEqual(expected);
  });

  it('refuses a table of another width', async () => {
    const inputs = {
      ids: { shape: [2], data: new Uint32Array(2) },
      table: { shape: [3, 5], data: new Float32Array(15) },
      out: { shape: [2, 4], written: true },
    };
    await expect(runKernel(gpu, inputs, embeddingForward)).rejects.toMatchObject({ code: 'shape' });
  });
});
