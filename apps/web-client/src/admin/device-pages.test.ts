import { type ClientCounts, clientStateSchema } from '@weft/protocol';
import { expect, it } from 'vitest';
import { rowsInWords, statesIn, totalOf } from './device-pages.ts';

const none = Object.fromEntries(clientStateSchema.options.map((state) => [state, 0])) as ClientCounts;

it('counts devices by state, the largest first, without states nobody is in', () => {
  const counts = { ...none, training: 300, gone: 9_500, waiting: 12 };
  expect(totalOf(counts)).toBe(9_812);
  expect(statesIn(counts)).toEqual([
    ['gone', 9_500],
    ['training', 300],
    ['waiting', 12],
  ]);
  expect(statesIn(none)).toEqual([]);
});

it('says which rows are shown', () => {
  expect(rowsInWords(100, 100, 9_812, 9_812)).toBe('Rows 101 to 200 of 9,812 devices');
  expect(rowsInWords(0, 37, 37, 9_812)).toBe('Rows 1 to 37 of 37 that match, of 9,812 devices');
  expect(rowsInWords(0, 0, 0, 9_812)).toBe('None of 9,812 devices');
});
