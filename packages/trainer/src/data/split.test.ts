import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitRows } from './split.ts';

const rows = (...values: number[]) => values.map((value) => ({ kind: 'text', prompt: String(value), completion: 'x' }));
const failure = expect.objectContaining({ name: 'TrainerError', code: 'bad-settings' });

describe('a split', () => {
  it('gives every distinct row to one side, at least one to each, whatever the rows', () => {
    const values = fc.array(fc.nat({ max: 30 }), { minLength: 2, maxLength: 60 });
    const fraction = fc.double({ min: 0.01, max: 0.99, noNaN: true });
    fc.assert(
      fc.property(values, fraction, (list, share) => {
        const distinct = new Set(list).size;
        fc.pre(distinct >= 2);
        const { train, heldOut, duplicates } = splitRows(rows(...list), { fraction: share, seed: 's' });
        const prompts = [...train, ...heldOut].map(({ prompt }) => prompt);
        expect(new Set(prompts).size).toBe(prompts.length);
        expect(prompts.length).toBe(distinct);
        expect(duplicates).toBe(list.length - distinct);
        expect(train.length).toBeGreaterThan(0);
        expect(heldOut.length).toBeGreaterThan(0);
        expect(Math.abs(heldOut.length - share * distinct)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('is the same for a seed, another for another, and keeps the order', () => {
    const all = rows(...Array.from({ length: 40 }, (_, i) => i));
    const { train, heldOut } = splitRows(all, { fraction: 0.25, seed: 'a' });
    expect(splitRows(all, { fraction: 0.25, seed: 'a' })).toEqual({ train, heldOut, duplicates: 0 });
    expect(splitRows(all, { fraction: 0.25, seed: 'b' }).heldOut).not.toEqual(heldOut);
    expect(heldOut).toHaveLength(10);
    expect(train).toEqual(all.filter((row) => train.includes(row)));
    expect(heldOut).toEqual(all.filter((row) => heldOut.includes(row)));
  });

  it('knows identical rows by their fields, in whatever order', () => {
    const same = [
      { prompt: 'a', completion: 'b' },
      { completion: 'b', prompt: 'a' },
      { prompt: 'a', completion: 'c' },
    ];
    expect(splitRows(same, { fraction: 0.5, seed: 's' })).toMatchObject({ duplicates: 1 });
  });

  it('refuses what cannot be split', () => {
    for (const fraction of [0, 1, -0.1, Number.NaN])
      expect(() => splitRows(rows(1, 2), { fraction, seed: 's' })).toThrow(failure);
    expect(() => splitRows(rows(1, 1), { fraction: 0.5, seed: 's' })).toThrow(failure);
    expect(() => splitRows([], { fraction: 0.5, seed: 's' })).toThrow(/no rows/);
  });
});
