import { type ClientCounts, type ClientRow, clientStateSchema } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { arrange, rowsInWords, statesIn, totalOf } from './device-table.ts';

const row = (clientId: string, changes: Partial<ClientRow>): ClientRow => ({
  clientId,
  name: null,
  device: 'Intel Xe',
  state: 'training',
  rank: 4,
  task: 'rooms',
  progress: null,
  uploadBytes: null,
  lastSeenMs: 0,
  reason: null,
  ...changes,
});

const rows = [
  row('a', { rank: 16, state: 'waiting' }),
  row('b', { rank: null, state: 'gone', reason: 'page closed' }),
  row('c', { rank: 8, device: 'Apple M2', name: 'Ada' }),
];
const ids = (list: ClientRow[]) => list.map((each) => each.clientId).join('');

describe('the device table', () => {
  it('sorts up and down, with the unknown last either way', () => {
    expect(ids(arrange(rows, '', { key: 'rank', descending: false }))).toBe('cab');
    expect(ids(arrange(rows, '', { key: 'rank', descending: true }))).toBe('acb');
  });

  it('sorts states in the order work goes', () => {
    expect(ids(arrange(rows, '', { key: 'state', descending: false }))).toBe('cab');
  });

  it('keeps rows that contain every word', () => {
    expect(ids(arrange(rows, 'intel page', { key: 'device', descending: false }))).toBe('b');
    expect(ids(arrange(rows, 'rank 8', { key: 'device', descending: false }))).toBe('c');
    expect(ids(arrange(rows, 'ada', { key: 'device', descending: false }))).toBe('c');
    expect(arrange(rows, 'nobody', { key: 'device', descending: false })).toEqual([]);
  });
});

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
