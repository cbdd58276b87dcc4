import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { seededStream } from '../random.ts';
import { columns } from './columns.ts';
import { addProduct, transposedView, type View, view } from './product.ts';
import { plainTiles, useTileEngine, wasmTiles } from './tiles.ts';

afterEach(() => useTileEngine(null));

const at = ({ data, from, down, across }: View, i: number, j: number): number =>
  data[from + i * down + j * across] ?? Number.NaN;

/** A part of a larger random matrix, perhaps transposed. */
function randomView(rows: number, cols: number, turned: boolean, ...seed: (string | number)[]): View {
  const [height, width] = turned ? [cols, rows] : [rows, cols];
  const draw = seededStream('product', ...seed);
  const whole = columns(height + 3, width + 2);
  for (let i = 0; i < whole.data.length; i += 1) whole.data[i] = draw();
  const part = view(whole, 2, 1, height, width);
  return turned ? transposedView(part) : part;
}

const copyOf = (original: View): View => ({ ...original, data: original.data.slice() });

describe('addProduct', () => {
  it('is the sum of products, in any strides and sizes, on both engines to the byte', () => {
    const wasm = wasmTiles();
    expect(wasm?.name).toBe('wasm');
    const plain = plainTiles();
    const size = fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 120, max: 135 }));
    const deep = fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 250, max: 262 }));
    fc.assert(
      fc.property(size, size, deep, fc.integer({ min: 0, max: 7 }), (rows, cols, depth, turned) => {
        const a = randomView(rows, depth, (turned & 1) > 0, 'a', rows, depth);
        const b = randomView(depth, cols, (turned & 2) > 0, 'b', depth, cols);
        const before = randomView(rows, cols, (turned & 4) > 0, 'c', rows, cols);
        const [c, again] = [copyOf(before), copyOf(before)];
        useTileEngine(plain);
        addProduct(-0.5, a, b, c);
        useTileEngine(wasm);
        addProduct(-0.5, a, b, again);
        expect(again.data).toEqual(c.data);
        let worst = 0;
        const inside = new Set<number>();
        for (let i = 0; i < rows; i += 1) {
          for (let j = 0; j < cols; j += 1) {
            let [sum, size] = [at(before, i, j), Math.abs(at(before, i, j))];
            for (let k = 0; k < depth; k += 1) {
              sum -= 0.5 * at(a, i, k) * at(b, k, j);
              size += Math.abs(at(a, i, k) * at(b, k, j));
            }
            worst = Math.max(worst, Math.abs(at(c, i, j) - sum) / (size || 1));
            inside.add(c.from + i * c.down + j * c.across);
          }
        }
        expect(worst).toBeLessThan(Number.EPSILON * (depth + 2));
        // What lies around is as it was.
        expect(c.data.every((value, i) => inside.has(i) || value === before.data[i])).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('goes on over blocks of columns', () => {
    const a = randomView(5, 3, false, 'a');
    const b = randomView(3, 1_100, false, 'b');
    const c = view(columns(5, 1_100));
    addProduct(2, a, b, c);
    for (const j of [0, 511, 512, 1_023, 1_024, 1_099]) {
      const sum = 2 * (at(a, 4, 0) * at(b, 0, j) + at(a, 4, 1) * at(b, 1, j) + at(a, 4, 2) * at(b, 2, j));
      expect(at(c, 4, j)).toBeCloseTo(sum, 14);
    }
  });

  it('refuses sizes that do not fit', () => {
    const [a, b] = [view(columns(2, 3)), view(columns(4, 2))];
    expect(() => addProduct(1, a, b, view(columns(2, 2)))).toThrow(RangeError);
  });
});
