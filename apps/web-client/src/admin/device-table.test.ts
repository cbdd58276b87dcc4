import type { ClientRow } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { arrange } from './device-table.ts';

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
