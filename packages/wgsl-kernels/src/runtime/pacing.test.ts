import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evenParts, groupPieces, MAX_WORKGROUPS, piecesOf } from './pacing.ts';

const sizes = (ends: readonly number[]): number[] => ends.map((end, i) => end - (ends[i - 1] ?? 0));

describe('pieces of a folded dispatch', () => {
  it('are the same workgroups, each once, in dispatches a device allows', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: MAX_WORKGROUPS }),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: 500 }),
        (x, y, wanted) => {
          const pieces = groupPieces(x, y, wanted);
          expect(pieces.length).toBeLessThanOrEqual(wanted);
          let next = 0;
          for (const { first, workgroups } of pieces) {
            expect(first).toBe(next);
            expect(Math.min(...workgroups)).toBeGreaterThan(0);
            expect(Math.max(...workgroups)).toBeLessThanOrEqual(MAX_WORKGROUPS);
            next += workgroups[0] * workgroups[1];
          }
          expect(next).toBe(x * y);
        },
      ),
    );
  });

  it('are about equal', () => {
    expect(groupPieces(10, 1, 4).map(({ workgroups }) => workgroups)).toEqual([
      [3, 1, 1],
      [3, 1, 1],
      [3, 1, 1],
      [1, 1, 1],
    ]);
    expect(groupPieces(60_000, 10, 3).map(({ first, workgroups }) => [first, ...workgroups])).toEqual([
      [0, 60_000, 4, 1],
      [240_000, 60_000, 4, 1],
      [480_000, 60_000, 2, 1],
    ]);
  });
});

describe('pieces by time', () => {
  it('are none that takes longer than the limit, where a call can be cut', () => {
    const calls = [
      { milliseconds: 10, most: 100 },
      { milliseconds: 120, most: 100 },
      { milliseconds: 500, most: 4 },
      { milliseconds: 500, most: 1 },
    ];
    expect(piecesOf(calls, 50, 64)).toEqual([1, 3, 4, 1]);
  });

  it('are fewer where there is no room for them', () => {
    const calls = Array.from({ length: 10 }, (_, i) => ({ milliseconds: 100 * (i + 1), most: 1000 }));
    const pieces = piecesOf(calls, 50, 40);
    expect(pieces.reduce((sum, count) => sum + count - 1, 0)).toBeLessThanOrEqual(40);
    // The longest piece is not much longer than the shortest of a call that was cut.
    const longest = calls.map(({ milliseconds }, i) => milliseconds / (pieces[i] ?? 1));
    expect(Math.max(...longest)).toBeLessThan(250);
    expect(piecesOf(calls, 50, 0)).toEqual(calls.map(() => 1));
  });
});

describe('parts of a run', () => {
  it('hold every item once, are not empty, and are no more than asked for', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 100, noNaN: true }), { minLength: 1, maxLength: 200 }),
        fc.integer({ min: 1, max: 50 }),
        (weights, parts) => {
          const ends = evenParts(weights, parts);
          expect(ends).toHaveLength(Math.min(parts, weights.length));
          expect(Math.min(...sizes(ends))).toBeGreaterThan(0);
          expect(ends.at(-1)).toBe(weights.length);
        },
      ),
    );
  });

  it('weigh the same, to half of an item', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.25, max: 1, noNaN: true }), { minLength: 50, maxLength: 200 }),
        fc.integer({ min: 1, max: 8 }),
        (weights, parts) => {
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          const ends = evenParts(weights, parts);
          const heaviest = ends.map((end, i) =>
            weights.slice(ends[i - 1] ?? 0, end).reduce((sum, weight) => sum + weight, 0),
          );
          expect(Math.max(...heaviest)).toBeLessThanOrEqual(total / parts + 1);
        },
      ),
    );
  });

  it('share what a heavy item leaves', () => {
    expect(evenParts([100, ...new Array<number>(8).fill(10)], 5)).toEqual([1, 3, 5, 7, 9]);
    expect(evenParts([], 3)).toEqual([0]);
  });
});
