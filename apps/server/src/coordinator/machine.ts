// The round machine: (state, event) → { state, effects }. No clock, no disk, no network. Selection and training have
// deadlines counted in time the server was up; heartbeats stay outside, the machine sees a lease only when it is lost.
// Rounds of one cohort and buffered-asynchronous runs (FedBuff, Nguyen et al., arXiv 2106.06639) are the same machine: a
// buffered run selects nobody, and merges a full buffer beside the training of the next (docs/decisions/0010).
import type { Phase } from '@weft/protocol';
import {
  asSentence,
  choose,
  countLeases,
  hasDelivered,
  leaseOf,
  liveLeaseOf,
  minimumFor,
  minimumOfUploads,
  plural,
  seededOrder,
  selectionLimit,
} from './derive.ts';
import { Draft } from './draft.ts';
import { arrive, passTime, settle, tryOnce } from './late.ts';
import { indexOf } from './lease-index.ts';
import type { LeaseEntry, MachineEvent, MachineState, Policy, Quarantine, Transition, Wish } from './types.ts';

/** A lost lease is offered again while at least this share of the training time is left. */
const REOFFER_SHARE = 0.25;
/** Tiers hold their places until this share of the selection time is left. */
const SPILL_SHARE = 0.5;
export function initialState(policy: Policy): MachineState {
  return {
    policy,
    run: 'created',
    version: 0,
    round: 0,
    phase: 'idle',
    remainingMs: null,
    graceMs: null,
    places: 0,
    present: 0,
    leases: [],
    late: [],
    merge: null,
    wishes: [],
    failures: 0,
    reason: null,
    ending: null,
  };
}

/** Answers one event. Events that do not fit the state (a late upload, a second release) change nothing. */
export function step(state: MachineState, event: MachineEvent): Transition {
  const draft = new Round(state);
  draft.on(event);
  return { state: draft.state, effects: draft.effects };
}

const OVERDUE = 'Merging took longer than its deadline.';

const isOpen = (phase: Phase): boolean => phase === 'selecting' || phase === 'training';

/** `what` the operator did, with the reason given. */
const byOperator = (what: string, reason: string | null | undefined): string =>
  asSentence(reason ? `The operator ${what}: ${reason}` : `The operator ${what}`);

/** What each event does to the state. */
class Round extends Draft {
  on(event: MachineEvent): void {
    switch (event.type) {
      case 'start':
        this.#start();
        break;
      case 'pause':
        this.#pause(event.reason);
        break;
      case 'stop':
        this.#stop(event.reason);
        break;
      case 'close-round':
        this.#closeRound(event.reason);
        break;
      case 'abort-round':
        this.#abortRound(event.reason);
        break;
      case 'extend':
        this.#extend(event.ms, event.reason);
        break;
      case 'elapsed':
        this.#elapsed(event.ms);
        break;
      case 'wish':
        this.#wish(event.wish);
        break;
      case 'present':
        this.set({ present: event.count });
        this.#fill();
        break;
      case 'withdraw':
        if (this.state.wishes.some((wish) => wish.clientId === event.clientId))
          this.set({ wishes: this.state.wishes.filter((wish) => wish.clientId !== event.clientId) });
        this.#fill();
        break;
      case 'lost':
        this.#lost(event.leaseId, event.reason, event.late ?? false);
        break;
      case 'uploaded':
        this.#uploaded(event.leaseId);
        break;
      case 'withdrawn':
        this.#withdrawn(event.leaseId, event.reason);
        break;
      case 'forgotten':
        this.#forgotten(event.clientId, event.pseudonym);
        break;
      case 'merged':
        this.#merged(event.round, event.quarantined, event.late ?? [], event.outcome ?? null);
        break;
      case 'merge-failed':
        this.#mergeFailed(event.round, event.reason, event.quarantined, event.late ?? []);
        break;
      case 'resumed':
        if (this.state.merge) this.effects.push({ type: 'merge', round: this.state.merge.round });
        if (this.state.phase === 'merging') this.effects.push({ type: 'merge', round: this.state.round });
        break;
    }
  }

  #start(): void {
    const { run, phase } = this.state;
    if (run !== 'created' && run !== 'paused') return;
    this.set({ run: 'running', failures: 0 });
    if (!isOpen(phase) && phase !== 'merging') this.#open();
  }

  /** A round that is training goes on to its end; one that still selects has nothing to lose. */
  #pause(reason: string | null | undefined): void {
    if (this.state.run !== 'running') return;
    this.set({ run: 'paused' });
    const why = reason ? byOperator('paused the run', reason) : 'The run was paused.';
    if (this.state.phase === 'selecting') this.abandon(why, { lateMs: 0, keep: true, isFailure: false });
    else if (!isOpen(this.state.phase) && this.state.phase !== 'merging')
      this.set({ remainingMs: null, ...(reason ? { reason: why } : {}) });
    else if (reason) this.set({ reason: why });
  }

  #stop(reason: string | null | undefined): void {
    const { run, phase, merge } = this.state;
    if (run === 'completed' || run === 'stopped') return;
    this.set({ run: 'stopped', wishes: [], ending: reason ?? null });
    const why = reason ? byOperator('stopped the run', reason) : 'The run was stopped.';
    if (merge) this.abandonMerge(why);
    if (isOpen(phase) || phase === 'merging') this.abandon(why, { lateMs: 0, keep: true, isFailure: false });
    this.endRun('stopped', why);
  }

  #open(): void {
    const { policy, round } = this.state;
    this.set({ round: round + 1, leases: [], places: 0 });
    if (this.buffered) this.enter('training', policy.trainingMs, null);
    else this.enter('selecting', policy.selectionMs, null);
    this.#fill();
  }

  #wish(wish: Wish): void {
    if (this.state.run === 'completed' || this.state.run === 'stopped') return;
    const held = liveLeaseOf(this.state, wish.clientId);
    if (held) this.mark(held, 'dropped', 'The volunteer asked for another lease.');
    // Who asks again keeps its place in the queue.
    const waits = this.state.wishes.some((other) => other.clientId === wish.clientId);
    const replacing = () => this.state.wishes.map((other) => (other.clientId === wish.clientId ? wish : other));
    this.set({ wishes: waits ? replacing() : [...this.state.wishes, wish] });
    this.#fill();
  }

  /** Gives open places to those who wait, and closes what has become full. */
  #fill(): void {
    if (this.state.phase === 'selecting') this.#select();
    else if (this.state.phase === 'training') {
      this.#offer();
      this.#checkTraining();
    }
  }

  #select(): void {
    const { policy, wishes, present, graceMs } = this.state;
    if (policy.deterministic) {
      // Nobody is taken before all who are here have asked: the cohort must not depend on who was quicker.
      if (wishes.length >= policy.goal && wishes.length >= present) {
        this.#closeSelection();
        return;
      }
      if (wishes.length >= policy.goal && graceMs === null) this.set({ graceMs: policy.graceMs });
      if (wishes.length < policy.goal && graceMs !== null) this.set({ graceMs: null });
      return;
    }
    this.#choose((this.state.remainingMs ?? 0) <= policy.selectionMs * SPILL_SHARE);
    this.#checkSelection();
  }

  #choose(spill: boolean): void {
    const { policy } = this.state;
    this.grant(choose(this.state, selectionLimit(policy), { tiers: policy.stratify, spill }));
  }

  #checkSelection(): void {
    const { policy, leases } = this.state;
    const counts = countLeases(leases);
    const kept = counts.training + counts.uploaded;
    if (counts.uploaded >= policy.goal || kept >= selectionLimit(policy)) {
      this.#closeSelection();
      return;
    }
    if (kept >= policy.goal && this.state.graceMs === null) this.set({ graceMs: policy.graceMs });
    if (kept < policy.goal && this.state.graceMs !== null) this.set({ graceMs: null });
  }

  #closeSelection(): void {
    const { policy } = this.state;
    // What the tiers have left goes to whoever waits.
    if (policy.stratify && !policy.deterministic) this.#choose(true);
    const cohort = policy.deterministic ? this.#cohortBySeed() : null;
    const counts = countLeases(this.state.leases);
    const kept = cohort ? cohort.length : counts.training + counts.uploaded;
    const ownInPlay = cohort?.some(({ own }) => own) ?? false;
    const minimum = cohort
      ? Math.max(policy.minimum, ownInPlay ? policy.ownFileMinimum : 0)
      : minimumFor(policy, this.state.leases);
    if (kept < minimum) {
      const own = minimum > policy.minimum ? ' when own files are in play' : '';
      this.abandon(`Selection ended with ${plural(kept, 'volunteer')}; ${minimum} are needed${own}.`);
      return;
    }
    if (cohort) this.grant(cohort);
    this.set({ places: kept });
    this.enter('training', policy.trainingMs, null);
    this.#checkTraining();
  }

  /** The volunteers a deterministic round takes, in the order in which leases are listed and tasks given. */
  #cohortBySeed(): Wish[] {
    const { policy, round, wishes } = this.state;
    const order = (wish: Wish) => seededOrder(`${policy.seed}/${round}/${wish.key}`);
    return [...wishes].sort((a, b) => order(a) - order(b) || (a.clientId < b.clientId ? -1 : 1)).slice(0, policy.goal);
  }

  /** Places that open while others train: those lost by others, or all there are where the run is buffered. */
  #offer(): void {
    const { policy, places, leases } = this.state;
    if (this.buffered) {
      // Only training takes a place: what a buffer has is delivered.
      const all = policy.concurrency + indexOf(leases).states.uploaded;
      this.grant(choose(this.state, all, { tiers: policy.stratify, spill: true }));
      return;
    }
    if (policy.deterministic || (this.state.remainingMs ?? 0) < policy.trainingMs * REOFFER_SHARE) return;
    this.grant(choose(this.state, places, { tiers: false, spill: true }));
  }

  #checkTraining(): void {
    const { policy, leases, merge, remainingMs } = this.state;
    const counts = countLeases(leases);
    if (merge !== null) return;
    if (!policy.deterministic && counts.uploaded >= policy.goal) this.#endTraining(null);
    else if (this.buffered && remainingMs === 0) this.#endTraining('time was up');
    else if (!this.buffered && counts.training === 0) this.#endTraining('no volunteer is left who could deliver');
  }

  /** `cause` explains why training ended short of its goal; `reason` is shown with the round. */
  #endTraining(cause: string | null, reason: string | null = null): void {
    const { policy, leases, merge, version, run, round } = this.state;
    if (merge !== null) {
      // One merge at a time: this one begins when the other has ended.
      this.set({ remainingMs: 0, reason: reason ?? this.state.reason });
      return;
    }
    const { uploaded } = countLeases(leases);
    const minimum = minimumOfUploads(policy, leases);
    if (uploaded < minimum) {
      const why = cause === null ? '' : `: ${cause}`;
      this.abandon(`Training ended with ${plural(uploaded, 'upload')} of the ${minimum} needed${why}.`);
      return;
    }
    if (this.buffered && run === 'running' && version + 1 < policy.rounds) {
      this.#swapBuffer(reason);
      return;
    }
    this.revoke(this.live(), 'The round has the uploads it needs.', policy.lateMs);
    this.enter('merging', policy.mergingMs, reason);
    this.effects.push({ type: 'merge', round });
  }

  /** What is in goes to a merge of its own, and training goes on into the next buffer. */
  #swapBuffer(reason: string | null): void {
    const { policy, leases, round } = this.state;
    this.tell(round, 'merging', reason);
    this.set({
      merge: { round, leases: leases.filter((lease) => lease.state !== 'live'), remainingMs: policy.mergingMs, reason },
      leases: leases.filter((lease) => lease.state === 'live'),
      round: round + 1,
    });
    this.effects.push({ type: 'merge', round });
    this.enter('training', policy.trainingMs, null);
    this.#offer();
  }

  #lost(leaseId: string, reason: string, late: boolean): void {
    const lease = leaseOf(this.state, leaseId);
    if (lease?.state !== 'live' || !isOpen(this.state.phase)) return;
    if (late && this.state.policy.lateMs > 0) this.revoke([lease], reason, this.state.policy.lateMs);
    else this.mark(lease, 'dropped', reason);
    this.#fill();
  }

  #uploaded(leaseId: string): void {
    const lease = leaseOf(this.state, leaseId);
    const open = isOpen(this.state.phase);
    const awaited = this.state.late.find((entry) => entry.leaseId === leaseId && !entry.arrived);
    // A lease that ran out counts after all while its round is open, unless its client has another.
    const revives =
      lease?.state === 'dropped' &&
      awaited &&
      !hasDelivered(this.state, lease.clientId) &&
      !liveLeaseOf(this.state, lease.clientId);
    if (lease && open && (lease.state === 'live' || revives)) {
      if (awaited) this.set({ late: settle(this.state.late, [leaseId]) });
      this.mark(lease, 'uploaded', null);
      if (this.state.phase === 'selecting') this.#checkSelection();
      else if (this.buffered) this.#fill();
      else this.#checkTraining();
      return;
    }
    if (awaited) this.set({ late: arrive(this.state.late, leaseId) });
  }

  /** Its place is open again, also to the volunteer who took the upload back. */
  #withdrawn(leaseId: string, reason: string): void {
    this.set({ late: settle(this.state.late, [leaseId]) });
    const lease = leaseOf(this.state, leaseId);
    if (lease?.state !== 'uploaded' || !isOpen(this.state.phase)) return;
    this.mark(lease, 'dropped', reason);
    this.#fill();
  }

  #forgotten(clientId: string, pseudonym: string): void {
    const renamed = <T extends LeaseEntry>(lease: T): T =>
      lease.clientId === clientId ? { ...lease, clientId: pseudonym, key: pseudonym } : lease;
    const { leases, late, merge } = this.state;
    this.set({
      leases: leases.map(renamed),
      late: late.map(renamed),
      merge: merge && { ...merge, leases: merge.leases.map(renamed) },
    });
  }

  #closeRound(reason: string | null | undefined): void {
    const why = reason ? byOperator('closed the round', reason) : null;
    if (this.state.phase === 'selecting') this.#closeSelection();
    else if (this.state.phase === 'training') this.#endTraining('the operator closed the round', why);
    else return;
    // An end carries its own reason; the operator's stands with it.
    if (why && this.state.reason !== why)
      this.set({ reason: this.state.reason === null ? why : `${this.state.reason} ${why}` });
  }

  #abortRound(reason: string | null | undefined): void {
    if (!isOpen(this.state.phase) && this.state.phase !== 'merging') return;
    // The operator has seen what is in it: nothing of it comes back with a later merge.
    this.abandon(byOperator('abandoned the round', reason), { lateMs: 0, keep: false, isFailure: false });
  }

  #extend(ms: number, reason: string | null | undefined): void {
    const { phase, remainingMs, graceMs } = this.state;
    if (remainingMs === null || (!isOpen(phase) && phase !== 'merging')) return;
    this.set({
      remainingMs: remainingMs + ms,
      // Asked for while the last come in, more time is for them too.
      graceMs: graceMs === null ? null : graceMs + ms,
      reason: byOperator(`gave the round ${Math.round(ms / 1000)} s more`, reason),
    });
  }

  #elapsed(ms: number): void {
    this.#passLate(ms);
    const { phase, leases, wishes, policy } = this.state;
    const full =
      phase === 'selecting' ? policy.selectionMs : this.buffered && phase === 'training' ? policy.trainingMs : 0;
    // The clock starts with the first volunteer: an empty house abandons no rounds.
    if (full > 0 && leases.length === 0 && wishes.length === 0 && (this.state.remainingMs ?? 0) >= full) {
      this.#passMerge(ms);
      return;
    }
    if (this.state.graceMs !== null) this.set({ graceMs: Math.max(0, this.state.graceMs - ms) });
    if (this.state.remainingMs !== null) this.#passPhase(ms, this.state.remainingMs);
    this.#passMerge(ms);
  }

  #passPhase(ms: number, before: number): void {
    const { phase, policy } = this.state;
    const remainingMs = Math.max(0, before - ms);
    this.set({ remainingMs });
    if (phase === 'selecting') {
      if (this.state.graceMs === 0 || remainingMs === 0) this.#closeSelection();
      else if (policy.stratify && remainingMs <= policy.selectionMs * SPILL_SHARE) this.#select();
      return;
    }
    if (remainingMs > 0) return;
    if (phase === 'training') this.#endTraining('time was up');
    else if (phase === 'merging') this.#mergeOverdue(() => this.abandon(OVERDUE));
    else if (this.state.run === 'running') this.#open();
  }

  #passMerge(ms: number): void {
    const { merge } = this.state;
    if (!merge) return;
    const remainingMs = Math.max(0, merge.remainingMs - ms);
    this.set({ merge: { ...merge, remainingMs } });
    if (remainingMs > 0) return;
    this.#mergeOverdue(() => this.abandonMerge(OVERDUE));
    this.#fill();
  }

  /** Nobody knows what held it up, so no late work that may have been in it is tried again. */
  #mergeOverdue(giveUp: () => void): void {
    this.set({
      late: tryOnce(
        this.state.late,
        this.state.late.flatMap(({ arrived, leaseId }) => (arrived ? leaseId : [])),
      ),
    });
    giveUp();
  }

  #passLate(ms: number): void {
    if (this.state.late.length === 0) return;
    const { late, over } = passTime(this.state.late, ms);
    this.set({ late });
    for (const { leaseId, clientId } of over) {
      const reason = 'The time for late work is over.';
      this.effects.push({ type: 'revoked', leaseId, clientId, reason, lateMs: 0 });
    }
  }

  #merged(round: number, quarantined: readonly Quarantine[], late: readonly string[], outcome: string | null): void {
    const { merge, phase, policy } = this.state;
    const version = this.state.version + 1;
    if (merge?.round === round) {
      this.set({ version, merge: null, failures: 0, late: settle(this.state.late, late) });
      this.tell(round, 'committed', outcome);
      this.#dropStale();
      this.#fill();
      return;
    }
    if (phase !== 'merging' || round !== this.state.round) return;
    this.quarantine(quarantined);
    this.set({ version, failures: 0, late: settle(this.state.late, late) });
    const done = version >= policy.rounds;
    this.enter('committed', done || this.state.run !== 'running' ? null : policy.restMs, outcome);
    if (done) this.endRun('completed', 'The run is complete.');
  }

  /** Of a buffered run: nobody goes on from, and nothing is merged of, what is too old. */
  #dropStale(): void {
    const { policy, version, leases } = this.state;
    const stale = leases.filter((lease) => version - lease.version > policy.maxStaleness);
    for (const from of new Set(stale.map((lease) => lease.version))) {
      const reason = `It started from version ${from}, ${version - from} versions ago; this run takes at most ${policy.maxStaleness}.`;
      const these = stale.filter((lease) => lease.version === from);
      this.revoke(
        these.filter((lease) => lease.state === 'live'),
        reason,
        0,
      );
      this.quarantine(these.map(({ leaseId }) => ({ leaseId, reason: `stale: ${reason}` })));
    }
  }

  #mergeFailed(round: number, reason: string, quarantined: readonly Quarantine[], late: readonly string[]): void {
    if (this.state.merge?.round === round) {
      this.set({ late: tryOnce(this.state.late, late) });
      this.abandonMerge(reason, new Set(quarantined.map(({ leaseId }) => leaseId)));
      this.#fill();
      return;
    }
    if (this.state.phase !== 'merging' || round !== this.state.round) return;
    this.quarantine(quarantined);
    this.set({ late: tryOnce(this.state.late, late) });
    this.abandon(reason);
  }
}
