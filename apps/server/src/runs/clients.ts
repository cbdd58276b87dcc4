// Who is here, for the device table: kept in memory only, rebuilt as clients come back. What every message needs is answered
// without looking at the others; only tables and counts go over all.
import type { ClientCounts, ClientQuery, ClientRow, ClientState, DeviceReport, Progress } from '@weft/protocol';
import { latestLeaseOf } from '../coordinator/derive.ts';
import type { LeaseEntry, MachineState } from '../coordinator/types.ts';
import { type Client, countsOf, rowOrder, rowsMatching } from './client-table.ts';

/** Rows kept of clients that have gone. */
const GONE_KEPT = 200;
/** Rows a snapshot carries. */
export const SNAPSHOT_ROWS = 200;

function describeDevice(device: DeviceReport): string {
  const { description, device: chip, architecture, vendor, software } = device.adapter;
  const name = description || chip || architecture || 'unknown adapter';
  return [name, vendor && !name.includes(vendor) ? vendor : '', software ? 'software' : ''].filter(Boolean).join(' · ');
}

export class Clients {
  readonly #here = new Map<string, Client>();
  /** In the order in which they left. */
  readonly #gone = new Map<string, Client>();
  readonly #now: () => number;
  readonly #banOf: (clientId: string) => string | null;
  #present = 0;

  /** `now`: monotonic milliseconds. `banOf`: why a client is banned; null where it is not. */
  constructor(now: () => number, banOf: (clientId: string) => string | null) {
    this.#now = now;
    this.#banOf = banOf;
  }

  connected(clientId: string, name: string | null, volunteers: boolean): void {
    const client: Client = this.#find(clientId) ?? {
      clientId,
      name,
      device: volunteers ? 'not measured yet' : 'evaluates for the operator',
      sockets: 0,
      volunteers,
      lastSeen: 0,
      rank: null,
      progress: null,
      uploadBytes: null,
    };
    if (client.sockets > 0 && client.volunteers) this.#present -= 1;
    client.sockets += 1;
    client.name = name;
    client.volunteers = volunteers;
    client.lastSeen = this.#now();
    if (volunteers) this.#present += 1;
    this.#gone.delete(clientId);
    this.#here.set(clientId, client);
  }

  /** Returns true when that was the client's last socket. */
  disconnected(clientId: string): boolean {
    const client = this.#here.get(clientId);
    if (!client) return false;
    client.sockets -= 1;
    client.lastSeen = this.#now();
    if (client.sockets > 0) return false;
    if (client.volunteers) this.#present -= 1;
    this.#here.delete(clientId);
    this.#gone.set(clientId, client);
    const first = this.#gone.keys().next();
    if (this.#gone.size > GONE_KEPT && !first.done) this.#gone.delete(first.value);
    return true;
  }

  #find(clientId: string): Client | undefined {
    return this.#here.get(clientId) ?? this.#gone.get(clientId);
  }

  /** Volunteers with an open socket. */
  present(): number {
    return this.#present;
  }

  /** A volunteer that asked to be forgotten. */
  remove(clientId: string): void {
    const client = this.#here.get(clientId);
    if (client?.volunteers) this.#present -= 1;
    this.#here.delete(clientId);
    this.#gone.delete(clientId);
  }

  has(clientId: string): boolean {
    return this.#find(clientId) !== undefined;
  }

  nameOf(clientId: string): string | null {
    return this.#find(clientId)?.name ?? null;
  }

  seen(clientId: string): void {
    const client = this.#find(clientId);
    if (client) client.lastSeen = this.#now();
  }

  proposed(clientId: string, device: DeviceReport, rank: number): void {
    const client = this.#find(clientId);
    if (!client) return;
    client.device = describeDevice(device);
    client.rank = rank;
    client.progress = null;
    client.uploadBytes = null;
  }

  progressed(clientId: string, progress: Progress): void {
    const client = this.#find(clientId);
    if (client) client.progress = progress;
  }

  uploaded(clientId: string, bytes: number): void {
    const client = this.#find(clientId);
    if (client) client.uploadBytes = bytes;
  }

  /** Rows for a snapshot: those here first, then those who left, latest first; at most {@link SNAPSHOT_ROWS}. */
  rows(state: MachineState): ClientRow[] {
    const chosen: Client[] = [];
    for (const client of this.#here.values()) {
      if (chosen.length === SNAPSHOT_ROWS) break;
      chosen.push(client);
    }
    chosen.push(...[...this.#gone.values()].reverse().slice(0, SNAPSHOT_ROWS - chosen.length));
    const waiting = waitingOf(state);
    return chosen.sort(rowOrder).map((client) => this.#row(client, state, waiting));
  }

  /** How many clients there are in each state. */
  counts(state: MachineState): ClientCounts {
    const waiting = waitingOf(state);
    return countsOf(this.#all(), (client) => this.#stateOf(client, this.#leaseOf(state, client), waiting));
  }

  /** The rows an operator asks for. */
  query(state: MachineState, wish: ClientQuery): { total: number; rows: ClientRow[] } {
    const waiting = waitingOf(state);
    const rows = Array.from(this.#all(), (client) => this.#row(client, state, waiting));
    return rowsMatching(rows, wish);
  }

  *#all(): Iterable<Client> {
    yield* this.#here.values();
    yield* this.#gone.values();
  }

  #leaseOf(state: MachineState, client: Client): LeaseEntry | undefined {
    return latestLeaseOf(state, client.clientId);
  }

  #row(client: Client, state: MachineState, waiting: ReadonlySet<string>): ClientRow {
    const lease = this.#leaseOf(state, client);
    const silent = Math.max(0, Math.round(this.#now() - client.lastSeen));
    return {
      clientId: client.clientId,
      name: client.name,
      device: client.device,
      state: this.#stateOf(client, lease, waiting),
      rank: lease?.rank ?? client.rank,
      task: lease ? (lease.own ? null : lease.task) : null,
      progress: client.progress,
      uploadBytes: client.uploadBytes,
      lastSeenMs: client.sockets > 0 && lease?.state !== 'live' ? 0 : silent,
      reason: this.#banOf(client.clientId) ?? lease?.reason ?? null,
    };
  }

  #stateOf(client: Client, lease: LeaseEntry | undefined, waiting: ReadonlySet<string>): ClientState {
    if (this.#banOf(client.clientId) !== null) return 'banned';
    if (lease?.state === 'live') return client.progress?.stage ?? 'downloading';
    if (client.sockets === 0) return 'gone';
    if (waiting.has(client.clientId)) return 'waiting';
    return lease ? lease.state : 'here';
  }
}

const waitingOf = ({ wishes }: MachineState): ReadonlySet<string> => new Set(wishes.map(({ clientId }) => clientId));
