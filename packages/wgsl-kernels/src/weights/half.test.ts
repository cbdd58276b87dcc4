import { describe, expect, it } from 'vitest';
import { halfBits, halfFromFloatBits, halfValue } from './half.ts';

const view = new DataView(new ArrayBuffer(4));
const floatBits = (value: number): number => {
  view.setFloat32(0, value);
  return view.getUint32(0);
};
const floatOf = (bits: number): number => {
  view.setUint32(0, bits);
  return view.getFloat32(0);
};

describe('half precision', () => {
  it('knows the numbers of the standard', () => {
    const known: [value: number, bits: number][] = [
      [0, 0x0000],
      [-0, 0x8000],
      [1, 0x3c00],
      [-2, 0xc000],
      [1 / 3, 0x3555],
      [0.1, 0x2e66],
      [65_504, 0x7bff],
      [65_519.99, 0x7bff],
      [65_520, 0x7c00],
      [Number.POSITIVE_INFINITY, 0x7c00],
      [Number.NEGATIVE_INFINITY, 0xfc00],
      [2 ** -14, 0x0400],
      [2 ** -24, 0x0001],
      [2 ** -25, 0x0000],
      [1.0001 * 2 ** -25, 0x0001],
      [2 ** -140, 0x0000],
    ];
    for (const [value, bits] of known) expect(halfBits(value), `${value}`).toBe(bits);
    expect(halfBits(Number.NaN) & 0x7fff).toBeGreaterThan(0x7c00);
    expect(halfFromFloatBits(0x7f80_0001) & 0x7fff).toBeGreaterThan(0x7c00);
    expect(halfValue(0x3555)).toBe(0.333251953125);
    expect(halfValue(0xfc00)).toBe(Number.NEGATIVE_INFINITY);
    expect(halfValue(0x7c01)).toBeNaN();
  });

  it('keeps every half, and rounds what lies between any two to the nearest, ties to even', () => {
    const wrong: string[] = [];
    const check = (bits: number, expected: number): void => {
      for (const sign of [0, 1]) {
        const got = halfFromFloatBits((bits | (sign << 31)) >>> 0);
        if (got !== (expected | (sign << 15))) wrong.push(`${floatOf(bits)} gave ${got}, not ${expected}`);
      }
    };
    for (let half = 0; half < 0x7c00; half += 1) {
      check(floatBits(halfValue(half)), half);
      // Beyond the largest the next step would be 65,536: from halfway on it is infinity.
      const next = half === 0x7bff ? 65_536 : halfValue(half + 1);
      const middle = floatBits((halfValue(half) + next) / 2);
      check(middle - 1, half);
      check(middle, half + (half & 1));
      check(middle + 1, half + 1);
    }
    expect(wrong).toEqual([]);
  });
});
