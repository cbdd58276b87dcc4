import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bfloat16Bits, bfloat16ToFloat32, float16Bits, float16ToFloat32 } from './half.ts';

/** Every bit pattern of 16 bits. */
const PATTERNS = Uint16Array.from({ length: 65_536 }, (_, pattern) => pattern);

describe('float16', () => {
  it('has the value its fields say, for every pattern', () => {
    const values = float16ToFloat32(PATTERNS);
    for (const pattern of PATTERNS) {
      const sign = pattern & 0x8000 ? -1 : 1;
      const exponent = (pattern >> 10) & 31;
      const fraction = (pattern & 1023) / 1024;
      const special = fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
      const finite = exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
      if (!Object.is(values[pattern], exponent === 31 ? special : finite))
        expect([pattern, values[pattern]]).toBeNull();
    }
  });
});

describe('narrowing to float16', () => {
  const values = float16ToFloat32(PATTERNS);

  it('comes back from every pattern', () => {
    for (const pattern of PATTERNS) {
      const value = values[pattern] ?? 0;
      const back = float16Bits(value);
      if (Number.isNaN(value) ? !Number.isNaN(values[back]) : back !== pattern) expect([pattern, back]).toBeNull();
    }
  });

  it('goes to the nearest between every two neighbours, to the even one from the middle, and rounds once', () => {
    for (const sign of [0, 0x8000]) {
      for (let low = 0; low < 0x7c00; low += 1) {
        const below = values[sign | low] ?? 0;
        // Infinity stands where the next number would: 65536.
        const above = low + 1 === 0x7c00 ? (sign ? -65_536 : 65_536) : (values[sign | (low + 1)] ?? 0);
        const middle = (below + above) / 2;
        const hair = Math.abs(middle) * 2 ** -45 * Math.sign(above - below);
        const even = low % 2 === 0 ? low : low + 1;
        const found = [middle - hair, middle, middle + hair].map(float16Bits);
        if (found.join() !== [sign | low, sign | even, sign | (low + 1)].join()) expect([low, found]).toBeNull();
      }
    }
    expect([1e9, -1e9, Number.POSITIVE_INFINITY, -0, 1e-30].map(float16Bits)).toEqual([
      0x7c00, 0xfc00, 0x7c00, 0x8000, 0,
    ]);
    expect(Number.isNaN(values[float16Bits(Number.NaN)])).toBe(true);
  });
});

describe('bfloat16', () => {
  const wide = (bits: number): number => bfloat16ToFloat32(Uint16Array.of(bits))[0] ?? Number.NaN;

  it('comes back from every pattern', () => {
    for (const pattern of PATTERNS) {
      const value = wide(pattern);
      const back = bfloat16Bits(value);
      if (Number.isNaN(value) ? !Number.isNaN(wide(back)) : back !== pattern) expect([pattern, back]).toBeNull();
    }
  });

  it('is the nearest, and of two the even one', () => {
    const number = fc.oneof(
      fc.double({ noNaN: true, noDefaultInfinity: true, min: -3e38, max: 3e38 }),
      fc.double({ min: -1, max: 1, noNaN: true }),
    );
    fc.assert(
      fc.property(number, (value) => {
        const bits = bfloat16Bits(value);
        const error = Math.abs(wide(bits) - value);
        // Patterns beside it, by magnitude; the sign stays.
        for (const beside of [bits - 1, bits + 1].filter(
          (pattern) => (pattern & 0x7fff) !== 0x7f80 && pattern >> 15 === bits >> 15,
        )) {
          const other = Math.abs(wide(beside) - value);
          expect(error < other || (error === other && bits % 2 === 0)).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('rounds once: a hair above the middle goes up, though float32 does not see the hair', () => {
    const middle = 1 + 2 ** -8;
    expect(wide(bfloat16Bits(middle))).toBe(1);
    expect(wide(bfloat16Bits(middle + 2 ** -40))).toBe(1 + 2 ** -7);
    expect(wide(bfloat16Bits(-middle - 2 ** -40))).toBe(-1 - 2 ** -7);
    expect(wide(bfloat16Bits(1 + 3 * 2 ** -8 - 2 ** -40))).toBe(1 + 2 ** -7);
    expect(wide(bfloat16Bits(1e39))).toBe(Number.POSITIVE_INFINITY);
  });
});
