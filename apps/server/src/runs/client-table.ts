// The device table as the operator asks for it: filtered, sorted, a page at a time. Pure; who the clients are is clients.ts's.
import {
  type ClientCounts,
  type ClientQuery,
  type ClientRow,
  type ClientState,
  clientStateSchema,
  type Progress,
} from '@weft/protocol';

export interface Client {
  readonly clientId: string;
  name: string | null;
  device: string;
  /** Open sockets: two tabs may share a key. */
  sockets: number;
  /** Counts as a volunteer; an evaluator does not. */
  volunteers: boolean;
  lastSeen: number;
  rank: number | null;
  progress: Progress | null;
  uploadBytes: number | null;
}

/** Those here first, by id; then those who left, latest first. */
export const rowOrder = (a: Client, b: Client): number =>
  Number(b.sockets > 0) - Number(a.sockets > 0) ||
  (a.sockets > 0 ? (a.clientId < b.clientId ? -1 : 1) : b.lastSeen - a.lastSeen);

export function countsOf(clients: Iterable<Client>, stateOf: (client: Client) => ClientState): ClientCounts {
  const counts: ClientCounts = Object.fromEntries(clientStateSchema.options.map((state) => [state, 0])) as ClientCounts;
  for (const client of clients) counts[stateOf(client)] += 1;
  return counts;
}

type Key = string | number | null;

/** States in the order work goes, so that sorting by state groups those who are equally far. */
const STATE_ORDER: readonly ClientState[] = [
  'training',
  'uploading',
  'downloading',
  'uploaded',
  'waiting',
  'here',
  'quarantined',
  'dropped',
  'gone',
  'banned',
];

const KEYS: Record<ClientQuery['sort'], (row: ClientRow) => Key> = {
  device: (row) => `${row.name ?? row.clientId} ${row.device}`.toLowerCase(),
  rank: (row) => row.rank,
  state: (row) => STATE_ORDER.indexOf(row.state),
  step: ({ progress }) => (progress && progress.steps > 0 ? progress.step / progress.steps : null),
  speed: (row) => row.progress?.tokensPerSecond ?? null,
  loss: (row) => row.progress?.loss ?? null,
  seen: (row) => row.lastSeenMs,
  reason: (row) => row.reason,
};

/** `rank 8` in a query is a rank, whatever else has an 8 in it. */
const RANK = /\brank (\d+)\b/;

/** Every word must be in the row: in its name, id, device, state, task or reason. */
function holds(row: ClientRow, words: readonly string[]): boolean {
  if (words.length === 0) return true;
  const { name, clientId, device, state, task, reason } = row;
  const text = [name, clientId, device, state, task, reason]
    .filter((part) => part !== null)
    .join(' ')
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Rows without a value come last either way. */
function compare(a: Key, b: Key, descending: boolean): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  const order = a < b ? -1 : a > b ? 1 : 0;
  return descending ? -order : order;
}

export function rowsMatching(
  rows: readonly ClientRow[],
  { query, state, sort, descending, offset, limit }: ClientQuery,
): { total: number; rows: ClientRow[] } {
  const rank = RANK.exec(query.toLowerCase())?.[1];
  const words = query.toLowerCase().replace(RANK, ' ').split(/\s+/).filter(Boolean);
  const key = KEYS[sort];
  const matching = rows
    .filter((row) => (state === null || row.state === state) && (rank === undefined || row.rank === Number(rank)))
    .filter((row) => holds(row, words))
    .sort((a, b) => compare(key(a), key(b), descending) || (a.clientId < b.clientId ? -1 : 1));
  return { total: matching.length, rows: matching.slice(offset, offset + limit) };
}
