import { beforeAll, describe, expect, it } from 'vitest';
import { ArenaPlan } from '../runtime/arena.ts';
import type { Gpu } from '../runtime/device.ts';
import { openTestGpu, randomNumbers } from '../testing/index.ts';
import { decodeWeightRows, WEIGHT_TYPES } from './encode.ts';
import { bindWeight, planWeight, writeWeightRows } from './weight-matrix.ts';

describe('writeWeightRows', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it('writes pieces of any number of rows, across parts, as it would write all at once', async () => {
    const [rows, columns] = [150, 40];
    const values = randomNumbers(2).floats(rows * columns);
    for (const type of WEIGHT_TYPES) {
      const plan = new ArenaPlan();
      const limit = 64 * { f32: 160, f16: 128, q8: 64, q4: 32 }[type];
      const refs = [
        planWeight(plan, 'whole', [rows, columns], type, 2 ** 20),
        planWeight(plan, 'cut', [rows, columns], type, limit),
      ];
      const arena = await plan.allocate(gpu);
      const created = gpu.counters.buffersCreated;
      const [whole, cut] = refs.map((ref) => bindWeight(ref, arena));
      if (!whole || !cut) throw new Error('Two matrices were planned.');
      expect([whole.parts.length, cut.parts.length]).toEqual([1, 3]);
      writeWeightRows(gpu, whole, 0, values);
      for (let first = 0; first < rows; first += 47) {
        writeWeightRows(gpu, cut, first, values.subarray(first * columns, (first + 47) * columns));
      }
      expect(gpu.counters.buffersCreated).toBe(created);
      const read = async (weight: typeof whole): Promise<Float32Array> => {
        const decoded: number[] = [];
        for (const part of weight.parts) {
          const data = await arena.read(part.data);
          const scales = part.scales && (await arena.read(part.scales));
          const words = type === 'f32' ? data : new Uint32Array(data.buffer);
          decoded.push(
            ...decodeWeightRows(type, { data: words, scales: scales && new Uint32Array(scales.buffer) }, columns),
          );
        }
        return Float32Array.from(decoded);
      };
      const once = await read(whole);
      if (type === 'f32') expect(once).toEqual(values);
      expect(once.every((value, i) => Math.abs(value - (values[i] ?? 0)) < 0.2)).toBe(true);
      expect(await read(cut)).toEqual(once);
      arena.destroy();
    }
  });

  it('refuses rows beyond the matrix and parts of rows', async () => {
    const plan = new ArenaPlan();
    const refs = planWeight(plan, 'w', [10, 4], 'q8', 2 ** 20);
    const weight = bindWeight(refs, plan.describe());
    expect(() => writeWeightRows(gpu, weight, 9, new Float32Array(8))).toThrow('w [10,4] has no rows 9 to 11.');
    expect(() => writeWeightRows(gpu, weight, -1, new Float32Array(4))).toThrow(
      expect.objectContaining({ code: 'shape' }),
    );
    expect(() => writeWeightRows(gpu, weight, 0, new Float32Array(6))).toThrow('has no rows 0 to 1.5');
  });
});
