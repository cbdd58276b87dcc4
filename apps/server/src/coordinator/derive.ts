// What follows from the leases: counts, minimum, whose turn it is. Derived each time and stored nowhere, so that
// nothing can drift apart.
import { indexOf } from './lease-index.ts';
import type { LateEntry, LeaseEntry, MachineState, Policy, Wish } from './types.ts';

export interface Counts {
  /** All leases of the round: training + uploaded + quarantined + dropped. */
  readonly leased: number;
  readonly training: number;
  readonly uploaded: number;
  readonly quarantined: number;
  readonly dropped: number;
}

export function countLeases(leases: readonly LeaseEntry[]): Counts {
  const { live, uploaded, quarantined, dropped } = indexOf(leases).states;
  return { leased: leases.length, training: live, uploaded, quarantined, dropped };
}

const minimumWith = (policy: Policy, ownInPlay: boolean): number =>
  ownInPlay ? Math.max(policy.minimum, policy.ownFileMinimum) : policy.minimum;

/** Accepted uploads a merge of these leases takes: more when own files are in play (docs/decisions/0001). */
export const minimumFor = (policy: Policy, leases: readonly LeaseEntry[]): number =>
  minimumWith(policy, indexOf(leases).ownKept > 0);

/** The same of the uploads that are in: who still trains no longer counts, and an own file of theirs neither. */
export const minimumOfUploads = (policy: Policy, leases: readonly LeaseEntry[]): number =>
  minimumWith(policy, indexOf(leases).ownUploaded > 0);

/** Leases at which selection closes at once: ⌈1.3·goal⌉, since some will be lost on the way. */
export function selectionLimit(policy: Policy): number {
  return policy.deterministic ? policy.goal : Math.ceil((policy.goal * 13) / 10);
}

/** Places of a tier: an equal share of all, the smallest ranks first where they do not divide. */
export function tierShare(policy: Policy, rank: number, places: number): number {
  const tier = policy.ranks.indexOf(rank);
  if (tier < 0) return places;
  const share = Math.floor(places / policy.ranks.length);
  return share + (tier < places % policy.ranks.length ? 1 : 0);
}

/**
 * Who is given a place, first come first, until `places` are taken. With `tiers` nobody gets more than its tier's share;
 * with `spill` what the tiers leave goes to the others.
 */
export function choose(
  { policy, leases, wishes }: MachineState,
  places: number,
  { tiers, spill }: { readonly tiers: boolean; readonly spill: boolean },
): Wish[] {
  const index = indexOf(leases);
  let free = places - index.states.live - index.states.uploaded;
  const chosen: Wish[] = [];
  const left: Wish[] = [];
  const byRank = new Map<number, number>();
  for (const wish of wishes) {
    if (free <= 0) break;
    if (index.delivered.has(wish.clientId)) continue;
    const taken = (index.keptByRank.get(wish.rank) ?? 0) + (byRank.get(wish.rank) ?? 0);
    if (tiers && taken >= tierShare(policy, wish.rank, places)) {
      left.push(wish);
      continue;
    }
    byRank.set(wish.rank, (byRank.get(wish.rank) ?? 0) + 1);
    chosen.push(wish);
    free -= 1;
  }
  return spill ? [...chosen, ...left.slice(0, Math.max(0, free))] : chosen;
}

/** FNV-1a over UTF-16 units: an order that depends on nothing but its text. */
export function seededOrder(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
  // One more scramble: FNV leaves similar texts close together.
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b) >>> 0;
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The served task with the fewest takers in this round; ties go by turns, another task first each round. */
export function nextTask(policy: Policy, takers: ReadonlyMap<string, number>, round: number): string | null {
  const { tasks } = policy;
  let best: string | null = null;
  let fewest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < tasks.length; i++) {
    const task = tasks[(i + Math.max(0, round - 1)) % tasks.length] ?? '';
    const count = takers.get(task) ?? 0;
    if (count < fewest) {
      best = task;
      fewest = count;
    }
  }
  return best;
}

const at = (leases: readonly LeaseEntry[], place: number | undefined): LeaseEntry | undefined =>
  place === undefined ? undefined : leases[place];

export const leaseOf = ({ leases }: MachineState, leaseId: string): LeaseEntry | undefined =>
  at(leases, indexOf(leases).places.get(leaseId));

/** The client's lease that is still live, or undefined. */
export const liveLeaseOf = ({ leases }: MachineState, clientId: string): LeaseEntry | undefined =>
  at(leases, indexOf(leases).liveOf.get(clientId));

/** The client's latest lease of the round, whatever became of it. */
export const latestLeaseOf = ({ leases }: MachineState, clientId: string): LeaseEntry | undefined =>
  at(leases, indexOf(leases).latestOf.get(clientId));

/** Whether the client has delivered to the round in progress. */
export const hasDelivered = ({ leases }: MachineState, clientId: string): boolean =>
  indexOf(leases).delivered.has(clientId);

/** Late work of this lease, expected or here. */
export const lateEntryOf = ({ late }: MachineState, leaseId: string): LateEntry | undefined =>
  late.find((entry) => entry.leaseId === leaseId);

/** Leases a merge of this round is of. */
export const leasesOfMerge = ({ merge, leases }: MachineState, round: number): readonly LeaseEntry[] =>
  merge?.round === round ? merge.leases : leases;

const isMerging = ({ merge, phase }: MachineState): boolean => merge !== null || phase === 'merging';

/** Whether this upload is in a merge that has begun, or may be: late work goes with any. */
export function isInMerge(state: MachineState, leaseId: string): boolean {
  if (state.merge?.leases.some((lease) => lease.leaseId === leaseId)) return true;
  if (state.phase === 'merging' && leaseOf(state, leaseId)?.state === 'uploaded') return true;
  return isMerging(state) && lateEntryOf(state, leaseId)?.arrived === true;
}

/** Whether this upload waits for a merge that has not begun. */
export function waitsForMerge(state: MachineState, leaseId: string): boolean {
  if (isInMerge(state, leaseId)) return false;
  const open = state.phase === 'selecting' || state.phase === 'training';
  return (open && leaseOf(state, leaseId)?.state === 'uploaded') || lateEntryOf(state, leaseId)?.arrived === true;
}

/** What this client has delivered and no merge has settled yet. */
export const deliveredBy = ({ leases, late, merge }: MachineState, clientId: string): readonly LeaseEntry[] => [
  ...[...leases, ...(merge?.leases ?? [])].filter((lease) => lease.clientId === clientId && lease.state === 'uploaded'),
  ...late.filter((entry) => entry.clientId === clientId && entry.arrived),
];

/** Versions that somebody still trains from or has work of: their start weights and states must be kept. */
export function versionsInUse({ version, leases, late, merge }: MachineState): ReadonlySet<number> {
  return new Set([version, ...[...leases, ...late, ...(merge?.leases ?? [])].map((entry) => entry.version)]);
}

/** `n upload` or `n uploads`. */
export const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** What somebody wrote, with a full stop unless it ends with a mark of its own. */
export const asSentence = (text: string): string => (/[.!?]$/.test(text) ? text : `${text}.`);
