// The device table as data: its columns, and rows filtered and sorted. Pure.
import type { ClientCounts, ClientRow, ClientState } from '@weft/protocol';
import { count, quantity } from '../shared/format.ts';

export type ColumnKey = 'device' | 'rank' | 'state' | 'step' | 'speed' | 'loss' | 'seen' | 'reason';

export interface Column {
  readonly key: ColumnKey;
  readonly label: string;
  readonly numeric: boolean;
}

export const COLUMNS: readonly Column[] = [
  { key: 'device', label: 'Device', numeric: false },
  { key: 'rank', label: 'Rank', numeric: true },
  { key: 'state', label: 'State', numeric: false },
  { key: 'step', label: 'Step', numeric: true },
  { key: 'speed', label: 'Tokens/s', numeric: true },
  { key: 'loss', label: 'Loss', numeric: true },
  { key: 'seen', label: 'Last seen', numeric: true },
  { key: 'reason', label: 'Reason', numeric: false },
];

export interface Sorting {
  readonly key: ColumnKey;
  readonly descending: boolean;
}

/** What a person calls the client: its chosen name, else the first letters of its id. */
export const clientLabel = (row: Pick<ClientRow, 'clientId' | 'name'>): string => row.name ?? row.clientId.slice(0, 8);

/** States in the order work goes, so that sorting by state groups those who are equally far. */
const STATE_ORDER: Record<ClientRow['state'], number> = {
  training: 0,
  uploading: 1,
  downloading: 2,
  uploaded: 3,
  waiting: 4,
  here: 5,
  quarantined: 6,
  dropped: 7,
  banned: 8,
  gone: 9,
};

function sortKey(row: ClientRow, key: ColumnKey): string | number | null {
  switch (key) {
    case 'device':
      return `${clientLabel(row)} ${row.device}`.toLowerCase();
    case 'rank':
      return row.rank;
    case 'state':
      return STATE_ORDER[row.state];
    case 'step':
      return row.progress && row.progress.steps > 0 ? row.progress.step / row.progress.steps : null;
    case 'speed':
      return row.progress?.tokensPerSecond ?? null;
    case 'loss':
      return row.progress?.loss ?? null;
    case 'seen':
      return row.lastSeenMs;
    case 'reason':
      return row.reason;
  }
}

/** Rows that contain every word of `filter`, in the order asked for. What is unknown stands last either way. */
export function arrange(rows: readonly ClientRow[], filter: string, sorting: Sorting): ClientRow[] {
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const textOf = (row: ClientRow) =>
    `${clientLabel(row)} ${row.clientId} ${row.device} ${row.rank === null ? '' : `rank ${row.rank}`} ${row.state} ${row.task ?? ''} ${row.reason ?? ''}`.toLowerCase();
  const kept = rows.filter((row) => {
    const text = textOf(row);
    return words.every((word) => text.includes(word));
  });
  const direction = sorting.descending ? -1 : 1;
  return kept
    .map((row) => ({ row, key: sortKey(row, sorting.key) }))
    .sort((a, b) => {
      if (a.key === null || b.key === null) return Number(a.key === null) - Number(b.key === null);
      if (a.key === b.key) return a.row.clientId < b.row.clientId ? -1 : 1;
      return (a.key < b.key ? -1 : 1) * direction;
    })
    .map(({ row }) => row);
}

export const totalOf = (counts: ClientCounts): number =>
  Object.values(counts).reduce((sum, devices) => sum + devices, 0);

/** States somebody is in, the largest first. */
export const statesIn = (counts: ClientCounts): [ClientState, number][] =>
  (Object.entries(counts) as [ClientState, number][])
    .filter(([, devices]) => devices > 0)
    .sort(([, a], [, b]) => b - a);

/** `Rows 101 to 200 of 9,812 devices`, `Rows 1 to 37 of 37 that match, of 9,812 devices` */
export function rowsInWords(offset: number, shown: number, matching: number, all: number): string {
  if (shown === 0) return `None of ${quantity(all, 'device')}`;
  const rows = `Rows ${count(offset + 1)} to ${count(offset + shown)} of`;
  return matching === all
    ? `${rows} ${quantity(all, 'device')}`
    : `${rows} ${count(matching)} that match, of ${quantity(all, 'device')}`;
}
