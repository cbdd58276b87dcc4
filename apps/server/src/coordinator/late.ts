// Work that missed its round: expected for a while, then here until a merge settles it by merging or crediting it. Pure; what
// a merge makes of it is runs/late-work.ts's.
import type { LateEntry, LeaseEntry } from './types.ts';

const without = (late: readonly LateEntry[], leases: readonly LeaseEntry[]): LateEntry[] => {
  const ids = new Set(leases.map(({ leaseId }) => leaseId));
  return late.filter(({ leaseId }) => !ids.has(leaseId));
};

/** These leases may still deliver for `remainingMs`. */
export const expectLate = (
  late: readonly LateEntry[],
  leases: readonly LeaseEntry[],
  remainingMs: number,
): readonly LateEntry[] => [
  ...without(late, leases),
  ...leases.map((lease) => ({ ...lease, remainingMs, arrived: false, tried: false })),
];

/** The receipt of this lease's upload is on disk. */
export const arrive = (late: readonly LateEntry[], leaseId: string): readonly LateEntry[] =>
  late.map((entry) =>
    entry.leaseId === leaseId ? { ...entry, state: 'uploaded', remainingMs: 0, arrived: true } : entry,
  );

/** Uploads of a round that came to nothing, to be settled by a later merge. `tried`: a merge of them has failed. */
export const keepUploads = (
  late: readonly LateEntry[],
  uploads: readonly LeaseEntry[],
  { tried }: { readonly tried: boolean },
): readonly LateEntry[] =>
  uploads.length === 0
    ? late
    : [...without(late, uploads), ...uploads.map((lease) => ({ ...lease, remainingMs: 0, arrived: true, tried }))];

/** Lets time pass; `over`: those whose time is. */
export function passTime(
  late: readonly LateEntry[],
  ms: number,
): { readonly late: readonly LateEntry[]; readonly over: readonly LateEntry[] } {
  const passed = late.map((entry) =>
    entry.arrived ? entry : { ...entry, remainingMs: Math.max(0, entry.remainingMs - ms) },
  );
  const isOver = ({ arrived, remainingMs }: LateEntry) => !arrived && remainingMs === 0;
  return { late: passed.filter((entry) => !isOver(entry)), over: passed.filter(isOver) };
}

/** A merge or a record has taken these. */
export function settle(late: readonly LateEntry[], leaseIds: readonly string[]): readonly LateEntry[] {
  if (leaseIds.length === 0) return late;
  const gone = new Set(leaseIds);
  return late.filter(({ leaseId }) => !gone.has(leaseId));
}

/** A merge with these has failed: none tries them again. */
export function tryOnce(late: readonly LateEntry[], leaseIds: readonly string[]): readonly LateEntry[] {
  if (leaseIds.length === 0) return late;
  const tried = new Set(leaseIds);
  return late.map((entry) => (tried.has(entry.leaseId) ? { ...entry, tried: true } : entry));
}
