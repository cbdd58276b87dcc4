import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseSafetensorsHeader, toFloat32 } from './safetensors.ts';
import { encodeElements, planSafetensors, writeSafetensors } from './safetensors-write.ts';

const shaped = fc
  .record({
    name: fc.string({ minLength: 1, unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom('F32' as const, 'F16' as const, 'BF16' as const),
    shape: fc.array(fc.nat(4), { maxLength: 3 }),
  })
  .map((tensor) => ({ ...tensor, elements: tensor.shape.reduce((product, size) => product * size, 1) }));
const tensors = fc.uniqueArray(shaped, { selector: ({ name }) => name, maxLength: 6 });

describe('planSafetensors', () => {
  it('lays out what writeSafetensors writes, tensor after tensor and piece by piece', () => {
    fc.assert(
      fc.property(tensors, fc.integer({ min: 1, max: 7 }), (drawn, piece) => {
        const data = new Map(
          drawn.map(({ name, elements }, k) => [name, Float32Array.from({ length: elements }, (_, i) => i + k / 3)]),
        );
        const plan = planSafetensors(drawn, { format: 'pt' });
        const parts: Uint8Array[] = [plan.header];
        for (const { name, dtype } of plan.entries) {
          const values = data.get(name) ?? new Float32Array();
          for (let first = 0; first < values.length; first += piece)
            parts.push(
              encodeElements(
                dtype === 'F16' || dtype === 'BF16' ? dtype : 'F32',
                values.subarray(first, first + piece),
              ),
            );
        }
        const file = Buffer.concat(parts);
        expect(file.length).toBe(plan.size);
        const whole = writeSafetensors(
          drawn.map(({ name, dtype, shape }) => ({ name, dtype, shape, data: data.get(name) ?? new Float32Array() })),
          { format: 'pt' },
        );
        expect(file.equals(whole)).toBe(true);
        const header = parseSafetensorsHeader(plan.header, plan.size);
        expect([...header.entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end)).toEqual(
          [...plan.entries].sort((a, b) => a.begin - b.begin || a.end - b.end),
        );
      }),
    );
  });

  it('plans tensors that no memory could hold', () => {
    const plan = planSafetensors([{ name: 'x', dtype: 'BF16', shape: [2 ** 20, 2 ** 20] }]);
    expect(plan.size).toBe(plan.header.length + 2 ** 41);
    expect(plan.entries[0]).toMatchObject({ begin: plan.header.length, end: plan.size });
  });
});

describe('encodeElements', () => {
  const decode = (dtype: 'F32' | 'F16' | 'BF16', values: Float32Array | Float64Array): number[] => [
    ...toFloat32({ dtype, shape: [values.length], bytes: encodeElements(dtype, values) }),
  ];

  it('rounds once, from whatever width it is given', () => {
    // A middle between two float16 and a hair more, which float32 cannot see: rounding twice would go down to even.
    const hair = Float64Array.of(1 + 2 ** -11 + 2 ** -40, 1 + 2 ** -11, -1 - 2 ** -11 - 2 ** -40);
    expect(decode('F16', hair)).toEqual([1 + 2 ** -10, 1, -1 - 2 ** -10]);
    const wide = Float64Array.of(1 + 2 ** -8 + 2 ** -40, 1 + 2 ** -8);
    expect(decode('BF16', wide)).toEqual([1 + 2 ** -7, 1]);
    expect(decode('F32', Float64Array.of(1 / 3))).toEqual([Math.fround(1 / 3)]);
  });

  it('keeps NaN and infinity, which are no overflow', () => {
    const values = Float32Array.of(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0);
    for (const dtype of ['F32', 'F16', 'BF16'] as const) expect(decode(dtype, values)).toEqual([...values]);
  });

  it('refuses a number that would become infinite', () => {
    const largest = { F16: 65504, BF16: (2 - 2 ** -7) * 2 ** 127, F32: (2 - 2 ** -23) * 2 ** 127 };
    for (const dtype of ['F16', 'BF16', 'F32'] as const) {
      const value = largest[dtype];
      const step = value * 2 ** -(dtype === 'F16' ? 12 : dtype === 'BF16' ? 9 : 25);
      expect(decode(dtype, Float64Array.of(value, -value - step / 2))).toEqual([value, -value]);
      const over = () => encodeElements(dtype, Float64Array.of(0, -value - 2.1 * step), 'w');
      expect(over).toThrow(expect.objectContaining({ code: 'safetensors-tensor' }));
      expect(over).toThrow(new RegExp(`w holds -.* at element 1, which ${dtype} cannot`));
    }
  });
});
