import { describe, expect, it } from 'vitest';
import { ArenaPlan, SLAB_BYTES } from '../runtime/arena.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { WEIGHT_TYPES } from './encode.ts';
import { bindWeight, planWeight, weightBytes, weightOf } from './weight-matrix.ts';

describe('planWeight', () => {
  it('keeps what fits in one tensor, with scales beside it for q8 and q4', () => {
    for (const type of WEIGHT_TYPES) {
      const plan = new ArenaPlan();
      const refs = planWeight(plan, 'w', [100, 70], type, SLAB_BYTES);
      expect(refs).toMatchObject({ name: 'w', type, rows: 100, columns: 70 });
      expect(refs.parts).toHaveLength(1);
      const words = { f32: 70, f16: 64, q8: 32, q4: 16 }[type];
      expect(refs.parts[0]).toMatchObject({ firstRow: 0, rows: 100, data: { name: 'w', shape: [100, words] } });
      const scales = refs.parts[0]?.scales ?? null;
      if (type === 'f32' || type === 'f16') expect(scales).toBeNull();
      else expect(scales).toMatchObject({ name: 'w scales', shape: [100, 2], type: 'u32' });
      expect(refs.parts[0]?.data.type).toBe(type === 'f32' ? 'f32' : 'u32');
      expect((refs.parts[0]?.data.bytes ?? 0) + (scales?.bytes ?? 0)).toBe(weightBytes(type, 100, 70));
    }
  });

  it('cuts at multiples of 64 rows, no part larger than the limit', () => {
    const plan = new ArenaPlan();
    const refs = planWeight(plan, 'head', [151_936, 896], 'f32', SLAB_BYTES);
    expect(refs.parts.map(({ firstRow, rows }) => [firstRow, rows])).toEqual([
      [0, 37_440],
      [37_440, 37_440],
      [74_880, 37_440],
      [112_320, 37_440],
      [149_760, 2176],
    ]);
    expect(refs.parts.map(({ data }) => data.name).slice(0, 2)).toEqual(['head [0…]', 'head [37440…]']);
    for (const { data } of refs.parts) expect(data.bytes).toBeLessThanOrEqual(SLAB_BYTES);
    // 151,936 rows of 2048 in q4: 1,024 bytes each.
    expect(planWeight(plan, 'q4', [151_936, 2048], 'q4', SLAB_BYTES).parts.map(({ rows }) => rows)).toEqual([
      131_072, 20_864,
    ]);
  });

  it('does not let a part outgrow 32-bit indices, however large bindings may be', () => {
    const refs = planWeight(new ArenaPlan(2 ** 40), 'w', [2 ** 20, 2 ** 13], 'q4', 2 ** 40);
    for (const { rows } of refs.parts) expect(rows * 2 ** 13).toBeLessThan(2 ** 32);
    expect(refs.parts.length).toBe(3);
  });

  it('refuses, by name, what even 64 rows are too large for, and sizes that are none', () => {
    const plan = (rows: number, columns: number, limit: number) => () =>
      planWeight(new ArenaPlan(), 'w', [rows, columns], 'f32', limit);
    expect(plan(65, 8, 64 * 32 - 1)).toThrow('w [65,8] cannot be kept as f32: 64 rows of 32 bytes do not fit in 2047.');
    expect(plan(65, 8, 64 * 32 - 1)).toThrow(expect.objectContaining({ name: 'GpuError', code: 'shape' }));
    expect(plan(65, 8, 64 * 32)).not.toThrow();
    expect(plan(0, 8, 1024)).toThrow(expect.objectContaining({ code: 'shape' }));
    expect(plan(8, 0, 1024)).toThrow(expect.objectContaining({ code: 'shape' }));
    expect(plan(2.5, 8, 1024)).toThrow(expect.objectContaining({ code: 'shape' }));
  });

  it('binds planned parts, and wraps a plain tensor', () => {
    const plan = new ArenaPlan();
    const refs = planWeight(plan, 'w', [130, 64], 'q8', 64 * 64);
    const weight = bindWeight(refs, plan.describe());
    expect(
      weight.parts.map(({ firstRow, rows, data, scales }) => [firstRow, rows, data.elements, scales?.elements]),
    ).toEqual([
      [0, 64, 1024, 64],
      [64, 64, 1024, 64],
      [128, 2, 32, 2],
    ]);
    expect(() => bindWeight(refs, new ArenaPlan().describe())).toThrow('belongs to another arena');

    const tensor: Tensor = {
      name: 'x',
      type: 'f32',
      shape: [3, 5],
      elements: 15,
      buffer: {} as GPUBuffer,
      offset: 0,
      bytes: 60,
    };
    expect(weightOf(tensor)).toMatchObject({
      name: 'x',
      type: 'f32',
      rows: 3,
      columns: 5,
      parts: [{ firstRow: 0, rows: 3 }],
    });
    expect(() => weightOf({ ...tensor, shape: [15] })).toThrow(expect.objectContaining({ code: 'shape' }));
  });
});
