import { beforeAll, describe, expect, it } from 'vitest';
import type { Gpu } from '../../runtime/device.ts';
import { shaderWarnings } from '../../runtime/shader.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { randomWeight, readError, rowsOf, runWithWeight } from '../../testing/weights.ts';
import { WEIGHT_TYPES, type WeightType } from '../../weights/encode.ts';
import { halfValue } from '../../weights/half.ts';
import { weightOf } from '../../weights/weight-matrix.ts';
import { embeddingForward, embeddingShaders } from './embedding.ts';

describe('embedding', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  /** Embeds `ids` with a random table in parts of at most `limit` bytes; returns the number of parts. */
  async function check(type: WeightType, ids: Uint32Array, vocabulary: number, width: number, limit = 2 ** 27) {
    const table = randomWeight(type, [vocabulary, width], { seed: vocabulary, limit });
    const { out } = await runWithWeight(
      gpu,
      table,
      { ids: { shape: [ids.length], data: ids }, out: { shape: [ids.length, width], written: true } },
      (tensors, w) => embeddingForward({ ids: tensors.ids, table: w, out: tensors.out }),
    );
    const expected = rowsOf(table.values, ids, width);
    if (type === 'q8') {
      expectWithin('out', out, expected, (i) => EPSILON * readError(type) * Math.abs(expected[i] ?? 0));
    } else expect(out.map((value) => value + 0)).toEqual(expected.map((value) => value + 0));
    return table.refs.parts.length;
  }

  it.each([
    [1, 1, 1],
    [5, 3, 7],
    [67, 33, 64],
    [64, 512, 65],
    [65_541, 5, 2],
  ])('copies rows of every type: %i ids, %i entries, width %i', async (rows, vocabulary, width) => {
    for (const type of WEIGHT_TYPES) {
      const ids = Uint32Array.from(randomNumbers(rows).integers(rows, vocabulary));
      ids[0] = vocabulary - 1;
      expect(await check(type, ids, vocabulary, width)).toBe(1);
    }
  });

  it('finds rows in whichever part they lie', async () => {
    const ids = Uint32Array.of(0, 199, 63, 64, 65, 127, 128, 64, 191, 192);
    for (const type of WEIGHT_TYPES) {
      // Rows of 80 elements take 320, 256, 128 and 64 bytes.
      const limit = 64 * { f32: 320, f16: 256, q8: 128, q4: 64 }[type];
      expect(await check(type, ids, 200, 80, limit)).toBe(4);
    }
  });

  it('reads every half; those below the normal ones perhaps as zero', async () => {
    const bits = Uint16Array.from({ length: 65_536 }, (_, i) => ((i & 0x7c00) === 0x7c00 ? 0 : i));
    const { out } = await runKernel(
      gpu,
      {
        ids: { shape: [64], data: Uint32Array.from({ length: 64 }, (_, i) => i) },
        data: { shape: [64, 512], data: new Uint32Array(bits.buffer) },
        out: { shape: [64, 1024], written: true },
      },
      ({ ids, data, out }) => {
        const parts = [{ firstRow: 0, rows: 64, data, scales: null }];
        return embeddingForward({ ids, table: { name: 'halves', type: 'f16', rows: 64, columns: 1024, parts }, out });
      },
    );
    const wrong = [...out].filter((value, i) => {
      const expected = halfValue(bits[i] ?? 0);
      return value !== expected && !(value === 0 && Math.abs(expected) < 2 ** -14);
    });
    expect(wrong).toEqual([]);
  });

  it('refuses a table of another width', async () => {
    const inputs = {
      ids: { shape: [2], data: new Uint32Array(2) },
      table: { shape: [3, 5], data: new Float32Array(15) },
      out: { shape: [2, 4], written: true },
    };
    const run = runKernel(gpu, inputs, ({ ids, table, out }) => embeddingForward({ ids, table: weightOf(table), out }));
    await expect(run).rejects.toThrow('embedding: out (out) is [2,4] where [2,5] is needed.');
  });

  it('compiles every shader without a warning', async () => {
    for (const shader of Object.values(embeddingShaders)) {
      expect(await shaderWarnings(gpu, { shader, entryPoint: 'main', constants: {} })).toEqual([]);
    }
  });
});
