// One event's work in progress on the round machine's state, and the changes that several events make: leases given, marked
// and revoked, rounds and runs ended. Which event leads to which is machine.ts's.
import type { Phase } from '@weft/protocol';
import { leaseOf, nextTask } from './derive.ts';
import { expectLate, keepUploads } from './late.ts';
import { appended, indexOf, replaced } from './lease-index.ts';
import type { Effect, LeaseEntry, LeaseState, MachineState, Policy, Quarantine, Wish } from './types.ts';

/** Pause between abandoned rounds: from the second on it doubles, between these. */
const LEAST_DOUBLED_REST_MS = 500;
const LONGEST_REST_MS = 60_000;

export class Draft {
  state: MachineState;
  readonly effects: Effect[] = [];

  constructor(state: MachineState) {
    this.state = state;
  }

  protected get buffered(): boolean {
    return this.state.policy.mode === 'buffered';
  }

  protected set(change: Partial<MachineState>): void {
    this.state = { ...this.state, ...change };
  }

  protected tell(round: number, phase: Phase, reason: string | null): void {
    this.effects.push({ type: 'phase', round, phase, reason });
  }

  protected enter(phase: Phase, remainingMs: number | null, reason: string | null): void {
    this.set({ phase, remainingMs, reason, graceMs: null });
    this.tell(this.state.round, phase, reason);
  }

  protected mark(lease: LeaseEntry, leaseState: LeaseState, reason: string | null): void {
    this.set({ leases: replaced(this.state.leases, [{ ...lease, state: leaseState, reason }]) });
  }

  /** Drops live leases; what they were working on is taken for `lateMs` yet. */
  protected revoke(leases: readonly LeaseEntry[], reason: string, lateMs: number): void {
    if (leases.length === 0) return;
    const dropped = leases.map((lease): LeaseEntry => ({ ...lease, state: 'dropped', reason }));
    this.set({
      leases: replaced(this.state.leases, dropped),
      late: lateMs > 0 ? expectLate(this.state.late, dropped, lateMs) : this.state.late,
    });
    for (const { leaseId, clientId } of dropped)
      this.effects.push({ type: 'revoked', leaseId, clientId, reason, lateMs });
  }

  protected live(): LeaseEntry[] {
    return indexOf(this.state.leases).states.live === 0
      ? []
      : this.state.leases.filter((lease) => lease.state === 'live');
  }

  /** Nothing is merged any more, so nobody needs to hurry. */
  protected endRun(run: 'completed' | 'stopped', reason: string): void {
    const arrived = this.state.late.filter((entry) => entry.arrived);
    if (arrived.length > 0) this.effects.push({ type: 'credit', late: arrived });
    for (const { leaseId, clientId, arrived: here } of this.state.late)
      if (!here) this.effects.push({ type: 'revoked', leaseId, clientId, reason, lateMs: 0 });
    this.set({ run, remainingMs: null, wishes: [], late: [] });
    this.effects.push({ type: 'run-ended', run });
  }

  protected grant(wishes: readonly Wish[]): void {
    if (wishes.length === 0) return;
    const { policy, round, version } = this.state;
    const leases = appended(this.state.leases, wishes, (wish, { takers }): LeaseEntry => {
      const task = wish.own ? null : (wish.task ?? nextTask(policy, takers, round));
      return { ...wish, task, state: 'live', reason: null, round, version };
    });
    const granted = new Set(wishes.map(({ leaseId }) => leaseId));
    this.set({ leases, wishes: this.state.wishes.filter(({ leaseId }) => !granted.has(leaseId)) });
    for (const lease of leases.slice(leases.length - wishes.length)) this.effects.push({ type: 'granted', lease });
  }

  protected quarantine(quarantined: readonly Quarantine[]): void {
    const changed = quarantined.flatMap(({ leaseId, reason }) => {
      const lease = leaseOf(this.state, leaseId);
      return lease?.state === 'uploaded' ? [{ ...lease, state: 'quarantined' as const, reason }] : [];
    });
    this.set({ leases: replaced(this.state.leases, changed) });
  }

  /** The merge beside training is given up; its uploads are credited with the next. */
  protected abandonMerge(reason: string, bad: ReadonlySet<string> = new Set()): void {
    const { merge, policy, failures } = this.state;
    if (!merge) return;
    const uploads = merge.leases.filter((lease) => lease.state === 'uploaded' && !bad.has(lease.leaseId));
    this.set({
      merge: null,
      failures: failures + 1,
      late: policy.lateMs > 0 ? keepUploads(this.state.late, uploads, { tried: true }) : this.state.late,
    });
    this.tell(merge.round, 'abandoned', reason);
    this.effects.push({ type: 'abandoned', round: merge.round, reason });
  }

  protected abandon(
    reason: string,
    how: { readonly lateMs: number; readonly keep: boolean; readonly isFailure: boolean } = {
      lateMs: this.state.policy.lateMs,
      keep: true,
      isFailure: true,
    },
  ): void {
    const { policy, phase } = this.state;
    this.revoke(this.live(), reason, phase === 'training' ? how.lateMs : 0);
    // What is here was acknowledged: the next merge takes it as late work, or credits it where this one has failed.
    const keeps = how.keep && policy.lateMs > 0;
    const uploads = keeps ? this.state.leases.filter((lease) => lease.state === 'uploaded') : [];
    const failures = how.isFailure ? this.state.failures + 1 : this.state.failures;
    this.set({ failures, late: keepUploads(this.state.late, uploads, { tried: phase === 'merging' }) });
    const restMs = how.isFailure ? restAfter(policy, failures) : policy.restMs;
    this.enter('abandoned', this.state.run === 'running' ? restMs : null, reason);
    this.effects.push({ type: 'abandoned', round: this.state.round, reason });
  }
}

/** Rounds that all fail at once must not follow each other at once. */
function restAfter({ restMs }: Policy, failures: number): number {
  if (failures <= 1) return restMs;
  const doubled = Math.max(restMs, LEAST_DOUBLED_REST_MS) * 2 ** Math.min(30, failures - 1);
  return Math.min(doubled, Math.max(restMs, LONGEST_REST_MS));
}
