// What follows from the leases: counts, minimum, whose turn it is. Derived each time and stored nowhere, so that
// nothing can drift apart.
import type { LeaseEntry, LeaseState, MachineState, Policy } from './types.ts';

export interface Counts {
  /** All leases of the round: training + uploaded + quarantined + dropped. */
  readonly leased: number;
  readonly training: number;
  readonly uploaded: number;
  readonly quarantined: number;
  readonly dropped: number;
}

export function countLeases(leases: readonly LeaseEntry[]): Counts {
  const of = (state: LeaseState) => leases.filter((lease) => lease.state === state).length;
  return {
    leased: leases.length,
    training: of('live'),
    uploaded: of('uploaded'),
    quarantined: of('quarantined'),
    dropped: of('dropped'),
  };
}

/** Accepted uploads a merge of these leases takes: more when own files are in play (docs/decisions/0001). */
export function minimumFor(policy: Policy, leases: readonly LeaseEntry[]): number {
  const ownInPlay = leases.some((lease) => lease.own && (lease.state === 'live' || lease.state === 'uploaded'));
  return ownInPlay ? Math.max(policy.minimum, policy.ownFileMinimum) : policy.minimum;
}

/** Leases at which selection closes at once: ⌈1.3·goal⌉, since some will be lost on the way. */
export function selectionLimit(policy: Policy): number {
  return policy.deterministic ? policy.goal : Math.ceil((policy.goal * 13) / 10);
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
export function nextTask(policy: Policy, leases: readonly LeaseEntry[], round: number): string | null {
  const { tasks } = policy;
  const takers = (task: string) => leases.filter((lease) => lease.task === task && lease.state !== 'dropped').length;
  const turned = tasks.map((_, i) => tasks[(i + round - 1) % tasks.length] ?? '');
  return turned.reduce<string | null>(
    (best, task) => (best === null || takers(task) < takers(best) ? task : best),
    null,
  );
}

/** The client's lease that is still live, or undefined. */
export function liveLeaseOf(state: MachineState, clientId: string): LeaseEntry | undefined {
  return state.leases.find((lease) => lease.clientId === clientId && lease.state === 'live');
}

/** Whether the client has delivered to the round in progress. */
export function hasDelivered(state: MachineState, clientId: string): boolean {
  return state.leases.some(
    (lease) => lease.clientId === clientId && (lease.state === 'uploaded' || lease.state === 'quarantined'),
  );
}

/** `n upload` or `n uploads`. */
export const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;
