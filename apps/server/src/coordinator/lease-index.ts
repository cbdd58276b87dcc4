// What the round asks of its leases all the time, kept beside a list of leases instead of counted through it: with ten
// thousand leases one event must stay cheap. Nothing of it is stored or written: an index belongs to one list, is made from
// that list when there is none, and a changed list inherits the old one's index with the change made to it.
import type { LeaseEntry, LeaseState } from './types.ts';

const bump = <K>(map: Map<K, number>, key: K, by: number): void => {
  const next = (map.get(key) ?? 0) + by;
  if (next === 0) map.delete(key);
  else map.set(key, next);
};

const isKept = (state: LeaseState): boolean => state === 'live' || state === 'uploaded';

export class LeaseIndex {
  readonly states: Record<LeaseState, number> = { live: 0, uploaded: 0, quarantined: 0, dropped: 0 };
  /** Place in the list by lease. */
  readonly places = new Map<string, number>();
  /** Place of a client's live lease, and of its latest. */
  readonly liveOf = new Map<string, number>();
  readonly latestOf = new Map<string, number>();
  /** Delivered leases by client. */
  readonly delivered = new Map<string, number>();
  /** Live or uploaded leases by rank; those on own files; and of these the uploaded. */
  readonly keptByRank = new Map<number, number>();
  ownKept = 0;
  ownUploaded = 0;
  /** Leases by task that were not dropped. */
  readonly takers = new Map<string, number>();

  constructor(leases: readonly LeaseEntry[]) {
    for (const [place, lease] of leases.entries()) this.#append(lease, place);
  }

  #append(lease: LeaseEntry, place: number): void {
    this.places.set(lease.leaseId, place);
    this.latestOf.set(lease.clientId, place);
    this.#count(lease, place, 1);
  }

  #count(lease: LeaseEntry, place: number, by: 1 | -1): void {
    const { state, clientId, rank, own, task } = lease;
    this.states[state] += by;
    if (state === 'live') {
      if (by === 1) this.liveOf.set(clientId, place);
      else if (this.liveOf.get(clientId) === place) this.liveOf.delete(clientId);
    }
    if (state === 'uploaded' || state === 'quarantined') bump(this.delivered, clientId, by);
    if (isKept(state)) {
      bump(this.keptByRank, rank, by);
      if (own) this.ownKept += by;
    }
    if (own && state === 'uploaded') this.ownUploaded += by;
    if (task !== null && state !== 'dropped') bump(this.takers, task, by);
  }

  /** For {@link appended} and {@link replaced} alone. */
  add(lease: LeaseEntry, place: number): void {
    this.#append(lease, place);
  }

  exchange(before: LeaseEntry, after: LeaseEntry, place: number): void {
    this.#count(before, place, -1);
    this.#count(after, place, 1);
  }
}

const indices = new WeakMap<readonly LeaseEntry[], LeaseIndex>();

export function indexOf(leases: readonly LeaseEntry[]): LeaseIndex {
  const known = indices.get(leases);
  if (known) return known;
  const index = new LeaseIndex(leases);
  indices.set(leases, index);
  return index;
}

/** Takes the index from a list that nobody will ask again soon; asked after all, it is made anew. */
function inherit(from: readonly LeaseEntry[], to: readonly LeaseEntry[]): LeaseIndex {
  const index = indexOf(from);
  indices.delete(from);
  indices.set(to, index);
  return index;
}

/** The list with one lease more for each `source`; `make` sees the index with those before it. */
export function appended<T>(
  leases: readonly LeaseEntry[],
  sources: readonly T[],
  make: (source: T, index: LeaseIndex) => LeaseEntry,
): readonly LeaseEntry[] {
  if (sources.length === 0) return leases;
  const next = leases.slice();
  const index = inherit(leases, next);
  for (const source of sources) {
    const lease = make(source, index);
    next.push(lease);
    index.add(lease, next.length - 1);
  }
  return next;
}

/** The list with these leases in the place of those with their ids; one that is not in it changes nothing. */
export function replaced(leases: readonly LeaseEntry[], changed: readonly LeaseEntry[]): readonly LeaseEntry[] {
  if (changed.length === 0) return leases;
  const next = leases.slice();
  const index = inherit(leases, next);
  for (const lease of changed) {
    const place = index.places.get(lease.leaseId);
    const before = place === undefined ? undefined : next[place];
    if (place === undefined || before === undefined) continue;
    next[place] = lease;
    index.exchange(before, lease, place);
  }
  return next;
}
