import { describe, expect, it } from 'vitest';
import { at, sumOf } from '../reference/index.ts';
import { randomNumbers } from '../testing/random.ts';
import { BLOCK, decodeWeightRows, encodeWeightRows, rowBytes, type WeightType } from './encode.ts';
import { halfBits, halfValue } from './half.ts';

const ENCODED: readonly WeightType[] = ['f16', 'q8', 'q4'];

/** Rows whose blocks differ in size by up to 2²⁰, with zero blocks among them. */
function draw(rows: number, columns: number, seed: number): Float32Array {
  const random = randomNumbers(seed);
  const values = random.floats(rows * columns);
  const sizes = random.integers(rows * columns, 21);
  return values.map((value, i) => {
    const size = at(sizes, Math.floor(i / BLOCK));
    return size === 20 ? 0 : value * 2 ** (size - 16);
  });
}

const roundTrip = (type: WeightType, values: Float32Array, columns: number): Float32Array =>
  decodeWeightRows(type, encodeWeightRows(type, values, columns), columns);

/** Calls `check` for every block of every row: where it starts, how long it is, and its scale as stored. */
function eachBlock(
  values: Float32Array,
  columns: number,
  scales: Uint32Array,
  check: (first: number, count: number, scale: number) => void,
): void {
  const blocks = 2 * Math.ceil(columns / 64);
  const halves = new Uint16Array(scales.buffer);
  for (let row = 0; row < values.length / columns; row += 1) {
    for (let column = 0; column < columns; column += BLOCK) {
      const scale = halfValue(at(halves, row * blocks + column / BLOCK));
      check(row * columns + column, Math.min(BLOCK, columns - column), scale);
    }
  }
}

describe('encoded weights', () => {
  it('lays words out as the shaders read them', () => {
    const halves = encodeWeightRows('f16', Float32Array.of(1, -2, 0.5), 3);
    expect([...halves.data].slice(0, 2)).toEqual([0xc000_3c00, 0x0000_3800]);
    expect([halves.data.length, halves.scales]).toEqual([32, null]);

    const row = new Float32Array(40);
    row.set([127, -127, 1, 0, -3], 0);
    row.set([254], 32);
    const q8 = encodeWeightRows('q8', row, 40);
    expect([...q8.data].map((word) => word.toString(16)).slice(0, 2)).toEqual(['1817f', 'fd']);
    expect([q8.data.length, at(q8.data, 8)]).toEqual([16, 127]);
    expect([...(q8.scales ?? [])]).toEqual([halfBits(127) + 65_536 * halfBits(254)]);

    // d = 1 and −0.5; the fifth element lies in the high nibbles of the first word.
    const small = new Float32Array(40);
    small.set([-8, 7, 1, 0, -3], 0);
    small.set([4, -3.5], 32);
    const q4 = encodeWeightRows('q4', small, 40);
    expect(q4.data.length).toBe(8);
    expect(at(q4.data, 0).toString(16)).toBe('88898f50');
    expect(at(q4.data, 4).toString(16)).toBe('88888f80');
    expect([...(q4.scales ?? [])]).toEqual([halfBits(1) + 65_536 * halfBits(-0.5)]);
    // Code 8 is a zero with the sign of its scale.
    expect(decodeWeightRows('q4', q4, 40).map((value) => value + 0)).toEqual(small);
  });

  it('takes 4, 2, 17/16 and 9/16 bytes a weight in whole rows of 64', () => {
    const bytes = (['f32', 'f16', 'q8', 'q4'] as const).map((type) => rowBytes(type, 128));
    expect(bytes).toEqual([512, 256, 136, 72]);
    expect(rowBytes('q4', 65)).toBe(72);
    expect(rowBytes('f32', 65)).toBe(260);
  });

  it('keeps f32 as it is and rounds f16 to the nearest half', () => {
    const values = draw(3, 65, 5);
    expect(roundTrip('f32', values, 65)).toEqual(values);
    expect(roundTrip('f16', values, 65)).toEqual(values.map((value) => halfValue(halfBits(value))));
  });

  it.each([1, 31, 32, 33, 64, 65, 200])('errs by half a step at most in rows of %i', (columns) => {
    const values = draw(23, columns, columns);
    const q8 = encodeWeightRows('q8', values, columns);
    const decoded = decodeWeightRows('q8', q8, columns);
    eachBlock(values, columns, q8.scales ?? new Uint32Array(), (first, count, scale) => {
      for (let i = first; i < first + count; i += 1) {
        // Half a step of scale / 127. Where the scale was rounded below the largest, that one is cut off by half a unit of
        // the scale: 2⁻¹¹ of it and so less than half a step, but 2⁻²⁵ for subnormal halves. Decoding rounds once.
        const bound = scale / 254 + 2 ** -25 + scale * 2 ** -24;
        expect(Math.abs(at(values, i) - at(decoded, i))).toBeLessThanOrEqual(bound);
      }
    });
    const q4 = encodeWeightRows('q4', values, columns);
    const decoded4 = decodeWeightRows('q4', q4, columns);
    eachBlock(values, columns, q4.scales ?? new Uint32Array(), (first, count, scale) => {
      for (let i = first; i < first + count; i += 1) {
        const code = scale === 0 ? 0 : at(decoded4, i) / scale;
        const cut = scale !== 0 && (at(values, i) / scale > 7.5 || at(values, i) / scale < -8.5);
        expect(code).toBe(Math.round(code));
        expect(code).toBeGreaterThanOrEqual(-8);
        expect(code).toBeLessThanOrEqual(7);
        if (cut) expect(code).toBe(at(values, i) / scale > 0 ? 7 : -8);
        // A scale of 0 stands for one below 2⁻²⁵, of an extreme eight times that.
        else expect(Math.abs(at(values, i) - at(decoded4, i))).toBeLessThanOrEqual(Math.abs(scale) / 2 + 8 * 2 ** -25);
      }
    });
  });

  it('fits the scale of q4 by least squares where that errs less', () => {
    const values = draw(40, 64, 9);
    const decoded = roundTrip('q4', values, 64);
    let fitted = 0;
    for (let first = 0; first < values.length; first += BLOCK) {
      const block = values.subarray(first, first + BLOCK);
      const extreme = block.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
      const plain = halfValue(halfBits(extreme / -8));
      const plainError = sumOf(BLOCK, (i) => {
        const code = plain === 0 ? 0 : Math.max(-8, Math.min(7, Math.round(at(block, i) / plain)));
        return (at(block, i) - code * plain) ** 2;
      });
      const error = sumOf(BLOCK, (i) => (at(block, i) - at(decoded, first + i)) ** 2);
      expect(error).toBeLessThanOrEqual(plainError);
      if (error < plainError) fitted += 1;
    }
    // Not merely no worse: most blocks gain.
    expect(fitted).toBeGreaterThan(40);
  });

  it('encodes rows alike, alone or among others', () => {
    const values = draw(7, 70, 11);
    for (const type of ENCODED) {
      const decoded = roundTrip(type, values, 70);
      for (let row = 0; row < 7; row += 1) {
        const alone = roundTrip(type, values.subarray(70 * row, 70 * row + 70), 70);
        expect(alone).toEqual(decoded.slice(70 * row, 70 * row + 70));
      }
    }
  });

  it('pads rows with zeros', () => {
    const ones = new Float32Array(33).fill(1);
    for (const type of ENCODED) {
      const padding = decodeWeightRows(type, encodeWeightRows(type, ones, 33), 64).slice(33);
      expect(padding.map((value) => value + 0)).toEqual(new Float32Array(31));
    }
  });

  it('refuses what is no number or beyond the type, and says what to do', () => {
    const encode = (type: WeightType, value: number) => encodeWeightRows(type, Float32Array.of(0, value), 2);
    for (const type of ['f32', ...ENCODED] as const) {
      for (const value of [Number.NaN, Number.NEGATIVE_INFINITY]) {
        expect(() => encode(type, value)).toThrow(expect.objectContaining({ name: 'GpuError', code: 'weight-value' }));
      }
    }
    expect(() => encode('f32', Number.NaN)).toThrow('Weight 1 is NaN. The file is damaged');
    for (const [type, value] of [
      ['f16', -65_520],
      ['q8', 1e5],
      ['q4', 8 * 65_520],
    ] as const) {
      expect(() => encode(type, value)).toThrow(expect.objectContaining({ code: 'weight-value' }));
      expect(() => encode(type, value)).toThrow(`is beyond what ${type} can hold`);
    }
    expect(() => encode('f16', 7e4)).toThrow('Load this model with base weights in f32.');
    for (const [type, value] of [
      ['f16', 65_519],
      ['q8', 65_519],
      ['q4', -8 * 65_504],
      ['f32', 1e38],
    ] as const) {
      expect(() => encode(type, value)).not.toThrow();
    }
    expect(() => encodeWeightRows('q8', new Float32Array(5), 2)).toThrow(expect.objectContaining({ code: 'shape' }));
  });
});
