import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeBatch } from './batches.ts';
import type { Example } from './examples.ts';
import { packExamples } from './packing.ts';

const SEQUENCE = 24;
/** Examples of any length up to the sequence, each with tokens of its own. */
const examples = fc.array(fc.integer({ min: 1, max: SEQUENCE }), { minLength: 1, maxLength: 40 }).map((lengths) =>
  lengths.map((length, i): Example => {
    const inputIds = Array.from({ length }, (_, t) => 100 * (i + 1) + t);
    return { inputIds, labels: inputIds, targets: length - 1 };
  }),
);
const total = (row: readonly Example[]) => row.reduce((sum, { inputIds }) => sum + inputIds.length, 0);

describe('packing', () => {
  it('puts every example into exactly one row, and no row over the length', () => {
    fc.assert(
      fc.property(examples, (all) => {
        const rows = packExamples(all, SEQUENCE);
        expect(new Set(rows.flat())).toEqual(new Set(all));
        expect(rows.flat()).toHaveLength(all.length);
        for (const row of rows) expect(total(row)).toBeLessThanOrEqual(SEQUENCE);
        expect(packExamples(all, SEQUENCE)).toEqual(rows);
      }),
    );
  });

  it('is first-fit: no example would have had room in a row before its own', () => {
    fc.assert(
      fc.property(examples, (all) => {
        // Plain first-fit decreasing, without the shortcut.
        const expected: Example[][] = [];
        for (const example of [...all].sort((a, b) => b.inputIds.length - a.inputIds.length)) {
          const row = expected.find((candidate) => total(candidate) + example.inputIds.length <= SEQUENCE);
          if (row) row.push(example);
          else expected.push([example]);
        }
        expect(packExamples(all, SEQUENCE)).toEqual(expected);
      }),
    );
  });

  it('keeps the examples of a row apart: each sees exactly what it would see alone', () => {
    fc.assert(
      fc.property(examples, (all) => {
        const rows = packExamples(all, SEQUENCE);
        const batch = makeBatch(rows, rows.length, SEQUENCE);
        const ownerOf = (n: number) => (batch.ids[n] === 0 ? -1 - n : Math.floor((batch.ids[n] ?? 0) / 100));
        for (let n = 0; n < batch.ids.length; n += 1) {
          const seen = (spans: Uint32Array) => {
            const [first = 0, last = -1] = spans.subarray(2 * n, 2 * n + 2);
            return Array.from({ length: last - first + 1 }, (_, i) => first + i);
          };
          const own = [...batch.ids.keys()].filter((m) => ownerOf(m) === ownerOf(n));
          expect(seen(batch.querySpans)).toEqual(own.filter((m) => m <= n));
          expect(seen(batch.keySpans)).toEqual(own.filter((m) => m >= n));
          expect(batch.positions[n]).toBe(own.indexOf(n));
          // Tokens of an example are numbered, so what is predicted must be the next number, or nothing at its end.
          const isLast = own.at(-1) === n;
          expect(batch.targets[n]).toBe(isLast ? -100 : (batch.ids[n] ?? 0) + 1);
        }
        expect(batch.targetTokens).toBe(batch.targets.filter((id) => id >= 0).length);
        expect(batch).toMatchObject({
          tokens: all.reduce((sum, e) => sum + e.inputIds.length, 0),
          examples: all.length,
        });
      }),
      { numRuns: 30 },
    );
  });

  it('really packs, and refuses an example longer than a row', () => {
    const long = (length: number): Example => ({ inputIds: Array(length).fill(1), labels: [], targets: 0 });
    expect(packExamples([long(3), long(7), long(5)], 10).map(total)).toEqual([10, 5]);
    const attempt = () => packExamples([long(11)], 10);
    expect(attempt).toThrow(expect.objectContaining({ name: 'TrainerError', code: 'bad-settings' }));
  });
});
