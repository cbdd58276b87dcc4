// Who is here, for the device table: kept in memory only, rebuilt as clients come back.
import type { ClientRow, ClientState, DeviceReport, Progress } from '@weft/protocol';
import { latestLeaseOf, liveLeaseOf } from '../coordinator/derive.ts';
import type { MachineState } from '../coordinator/types.ts';

/** Rows kept of clients that have gone. */
const GONE_KEPT = 200;

interface Client {
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

function describeDevice(device: DeviceReport): string {
  const { description, device: chip, architecture, vendor, software } = device.adapter;
  const name = description || chip || architecture || 'unknown adapter';
  return [name, vendor && !name.includes(vendor) ? vendor : '', software ? 'software' : ''].filter(Boolean).join(' · ');
}

export class Clients {
  readonly #clients = new Map<string, Client>();
  readonly #now: () => number;

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  connected(clientId: string, name: string | null, volunteers: boolean): void {
    const known = this.#clients.get(clientId);
    const client = known ?? {
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
    client.sockets += 1;
    client.name = name;
    client.volunteers = volunteers;
    client.lastSeen = this.#now();
    this.#clients.set(clientId, client);
    this.#forget();
  }

  /** Returns true when that was the client's last socket. */
  disconnected(clientId: string): boolean {
    const client = this.#clients.get(clientId);
    if (!client) return false;
    client.sockets = Math.max(0, client.sockets - 1);
    client.lastSeen = this.#now();
    return client.sockets === 0;
  }

  /** Volunteers with an open socket. */
  present(): number {
    return [...this.#clients.values()].filter((client) => client.sockets > 0 && client.volunteers).length;
  }

  /** A volunteer that asked to be forgotten. */
  remove(clientId: string): void {
    this.#clients.delete(clientId);
  }

  has(clientId: string): boolean {
    return this.#clients.has(clientId);
  }

  nameOf(clientId: string): string | null {
    return this.#clients.get(clientId)?.name ?? null;
  }

  seen(clientId: string): void {
    const client = this.#clients.get(clientId);
    if (client) client.lastSeen = this.#now();
  }

  proposed(clientId: string, device: DeviceReport, rank: number): void {
    const client = this.#clients.get(clientId);
    if (!client) return;
    client.device = describeDevice(device);
    client.rank = rank;
    client.progress = null;
    client.uploadBytes = null;
  }

  progressed(clientId: string, progress: Progress): void {
    const client = this.#clients.get(clientId);
    if (client) client.progress = progress;
  }

  uploaded(clientId: string, bytes: number): void {
    const client = this.#clients.get(clientId);
    if (client) client.uploadBytes = bytes;
  }

  /** One row a client: those here first, then those who left, latest first. */
  rows(state: MachineState): ClientRow[] {
    const now = this.#now();
    const clients = [...this.#clients.values()].sort(
      (a, b) =>
        Number(b.sockets > 0) - Number(a.sockets > 0) ||
        (a.sockets > 0 ? (a.clientId < b.clientId ? -1 : 1) : b.lastSeen - a.lastSeen),
    );
    return clients.map((client) => {
      const lease = liveLeaseOf(state, client.clientId) ?? latestLeaseOf(state, client.clientId);
      return {
        clientId: client.clientId,
        name: client.name,
        device: client.device,
        state: this.#stateOf(client, state),
        rank: lease?.rank ?? client.rank,
        task: lease ? (lease.own ? null : lease.task) : null,
        progress: client.progress,
        uploadBytes: client.uploadBytes,
        lastSeenMs: client.sockets > 0 && lease?.state !== 'live' ? 0 : Math.max(0, Math.round(now - client.lastSeen)),
        reason: lease?.reason ?? null,
      };
    });
  }

  #stateOf(client: Client, state: MachineState): ClientState {
    const lease = liveLeaseOf(state, client.clientId);
    if (lease) {
      return client.progress?.stage ?? 'downloading';
    }
    if (client.sockets === 0) return 'gone';
    if (state.wishes.some((wish) => wish.clientId === client.clientId)) return 'waiting';
    const last = latestLeaseOf(state, client.clientId);
    return last && last.state !== 'live' ? last.state : 'here';
  }

  #forget(): void {
    const gone = [...this.#clients.values()].filter((client) => client.sockets === 0);
    gone.sort((a, b) => b.lastSeen - a.lastSeen);
    for (const client of gone.slice(GONE_KEPT)) this.#clients.delete(client.clientId);
  }
}
