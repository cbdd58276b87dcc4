// The round machine: (state, event) → { state, effects }. No clock, no disk, no network. Selection and training have
// deadlines counted in time the server was up; heartbeats stay outside, the machine sees a lease only when it is lost.
import type { Phase } from '@weft/protocol';
import {
  countLeases,
  hasDelivered,
  liveLeaseOf,
  minimumFor,
  nextTask,
  plural,
  seededOrder,
  selectionLimit,
} from './derive.ts';
import type {
  Effect,
  LeaseEntry,
  LeaseState,
  MachineEvent,
  MachineState,
  Policy,
  Quarantine,
  Transition,
  Wish,
} from './types.ts';

/** A lost lease is offered again while at least this share of the training time is left. */
const REOFFER_SHARE = 0.25;

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
    wishes: [],
    reason: null,
  };
}

/** Answers one event. Events that do not fit the state (a late upload, a second release) change nothing. */
export function step(state: MachineState, event: MachineEvent): Transition {
  const draft = new Draft(state);
  draft.on(event);
  return { state: draft.state, effects: draft.effects };
}

const isOpen = (phase: Phase): boolean => phase === 'selecting' || phase === 'training';

/** One event's work in progress. */
class Draft {
  state: MachineState;
  readonly effects: Effect[] = [];

  constructor(state: MachineState) {
    this.state = state;
  }

  on(event: MachineEvent): void {
    switch (event.type) {
      case 'start':
        this.#start();
        break;
      case 'pause':
        this.#pause();
        break;
      case 'stop':
        this.#stop();
        break;
      case 'close-round':
        this.#closeRound();
        break;
      case 'elapsed':
        this.#elapsed(event.ms);
        break;
      case 'wish':
        this.#wish(event.wish);
        break;
      case 'present':
        this.#set({ present: event.count });
        this.#fill();
        break;
      case 'withdraw':
        this.#set({ wishes: this.state.wishes.filter((wish) => wish.clientId !== event.clientId) });
        this.#fill();
        break;
      case 'lost':
        this.#lost(event.leaseId, event.reason);
        break;
      case 'uploaded':
        this.#uploaded(event.leaseId);
        break;
      case 'withdrawn':
        this.#withdrawn(event.leaseId, event.reason);
        break;
      case 'forgotten':
        this.#set({
          leases: this.state.leases.map((lease) =>
            lease.clientId === event.clientId ? { ...lease, clientId: event.pseudonym, key: event.pseudonym } : lease,
          ),
        });
        break;
      case 'merged':
        this.#merged(event.round, event.quarantined);
        break;
      case 'merge-failed':
        if (this.state.phase !== 'merging' || event.round !== this.state.round) break;
        this.#quarantine(event.quarantined);
        this.#abandon(event.reason);
        break;
      case 'resumed':
        if (this.state.phase === 'merging') this.effects.push({ type: 'merge', round: this.state.round });
        break;
    }
  }

  #set(change: Partial<MachineState>): void {
    this.state = { ...this.state, ...change };
  }

  #enter(phase: Phase, remainingMs: number | null, reason: string | null): void {
    this.#set({ phase, remainingMs, reason, graceMs: null });
    this.effects.push({ type: 'phase', round: this.state.round, phase, reason });
  }

  #mark(leaseId: string, leaseState: LeaseState, reason: string | null): void {
    this.#set({
      leases: this.state.leases.map((lease) =>
        lease.leaseId === leaseId ? { ...lease, state: leaseState, reason } : lease,
      ),
    });
  }

  #start(): void {
    const { run, phase } = this.state;
    if (run !== 'created' && run !== 'paused') return;
    this.#set({ run: 'running' });
    if (!isOpen(phase) && phase !== 'merging') this.#open();
  }

  /** A round that is training goes on to its end; one that still selects has nothing to lose. */
  #pause(): void {
    if (this.state.run !== 'running') return;
    this.#set({ run: 'paused' });
    if (this.state.phase === 'selecting') this.#abandon('The run was paused.');
    else if (!isOpen(this.state.phase) && this.state.phase !== 'merging') this.#set({ remainingMs: null });
  }

  #stop(): void {
    const { run, phase } = this.state;
    if (run === 'completed' || run === 'stopped') return;
    this.#set({ run: 'stopped', wishes: [] });
    if (isOpen(phase) || phase === 'merging') this.#abandon('The run was stopped.');
    this.#set({ remainingMs: null });
    this.effects.push({ type: 'run-ended', run: 'stopped' });
  }

  #open(): void {
    this.#set({ round: this.state.round + 1, leases: [], places: 0 });
    this.#enter('selecting', this.state.policy.selectionMs, null);
    this.#select();
  }

  #grant(wish: Wish): void {
    const { policy, leases, round } = this.state;
    const task = wish.own ? null : (wish.task ?? nextTask(policy, leases, round));
    const lease: LeaseEntry = { ...wish, task, state: 'live', reason: null };
    this.#set({
      leases: [...leases, lease],
      wishes: this.state.wishes.filter((other) => other.leaseId !== wish.leaseId),
    });
    this.effects.push({ type: 'granted', lease });
  }

  #wish(wish: Wish): void {
    if (this.state.run === 'completed' || this.state.run === 'stopped') return;
    const held = liveLeaseOf(this.state, wish.clientId);
    if (held) this.#mark(held.leaseId, 'dropped', 'The volunteer asked for another lease.');
    // Who asks again keeps its place in the queue.
    const waits = this.state.wishes.some((other) => other.clientId === wish.clientId);
    const replaced = this.state.wishes.map((other) => (other.clientId === wish.clientId ? wish : other));
    this.#set({ wishes: waits ? replaced : [...this.state.wishes, wish] });
    this.#fill();
  }

  /** Gives open places to those who wait, and closes what has become full. */
  #fill(): void {
    if (this.state.phase === 'selecting') this.#select();
    else if (this.state.phase === 'training') {
      this.#reoffer();
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
      if (wishes.length >= policy.goal && graceMs === null) this.#set({ graceMs: policy.graceMs });
      if (wishes.length < policy.goal && graceMs !== null) this.#set({ graceMs: null });
      return;
    }
    const limit = selectionLimit(policy);
    for (const wish of this.state.wishes) {
      const counts = countLeases(this.state.leases);
      if (counts.training + counts.uploaded >= limit) break;
      if (!hasDelivered(this.state, wish.clientId)) this.#grant(wish);
    }
    this.#checkSelection();
  }

  #checkSelection(): void {
    const { policy, leases } = this.state;
    const counts = countLeases(leases);
    const kept = counts.training + counts.uploaded;
    if (counts.uploaded >= policy.goal || kept >= selectionLimit(policy)) {
      this.#closeSelection();
      return;
    }
    if (kept >= policy.goal && this.state.graceMs === null) this.#set({ graceMs: policy.graceMs });
    if (kept < policy.goal && this.state.graceMs !== null) this.#set({ graceMs: null });
  }

  #closeSelection(): void {
    const { policy } = this.state;
    const cohort = policy.deterministic ? this.#cohortBySeed() : this.state.leases;
    const kept = cohort.filter((lease) => lease.state === 'live' || lease.state === 'uploaded').length;
    const minimum = minimumFor(policy, cohort);
    if (kept < minimum) {
      const own = minimum > policy.minimum ? ' when own files are in play' : '';
      this.#abandon(`Selection ended with ${plural(kept, 'volunteer')}; ${minimum} are needed${own}.`);
      return;
    }
    if (policy.deterministic) for (const lease of cohort) this.#grant(lease);
    this.#set({ places: kept });
    this.#enter('training', policy.trainingMs, null);
    this.#checkTraining();
  }

  /** The volunteers a deterministic round takes, in the order in which leases are listed and tasks given. */
  #cohortBySeed(): LeaseEntry[] {
    const { policy, round, wishes } = this.state;
    const order = (wish: Wish) => seededOrder(`${policy.seed}/${round}/${wish.key}`);
    return [...wishes]
      .sort((a, b) => order(a) - order(b) || (a.clientId < b.clientId ? -1 : 1))
      .slice(0, policy.goal)
      .map((wish) => ({ ...wish, state: 'live', reason: null }));
  }

  #reoffer(): void {
    const { policy } = this.state;
    if (policy.deterministic || (this.state.remainingMs ?? 0) < policy.trainingMs * REOFFER_SHARE) return;
    for (const wish of this.state.wishes) {
      const counts = countLeases(this.state.leases);
      if (counts.training + counts.uploaded >= this.state.places) return;
      if (!hasDelivered(this.state, wish.clientId)) this.#grant(wish);
    }
  }

  #checkTraining(): void {
    const counts = countLeases(this.state.leases);
    if (!this.state.policy.deterministic && counts.uploaded >= this.state.policy.goal) {
      this.#endTraining(null);
      return;
    }
    if (counts.training === 0) this.#endTraining('no volunteer is left who could deliver');
  }

  /** `cause` explains why training ended short of its goal. */
  #endTraining(cause: string | null): void {
    const { policy, leases } = this.state;
    const { uploaded } = countLeases(leases);
    // Those who still train no longer count, so their own files do not either.
    const minimum = minimumFor(
      policy,
      leases.filter((lease) => lease.state === 'uploaded'),
    );
    if (uploaded < minimum) {
      const why = cause === null ? '' : `: ${cause}`;
      this.#abandon(`Training ended with ${plural(uploaded, 'upload')} of the ${minimum} needed${why}.`);
      return;
    }
    this.#revokeLive('The round has the uploads it needs.');
    this.#enter('merging', policy.mergingMs, null);
    this.effects.push({ type: 'merge', round: this.state.round });
  }

  #revokeLive(reason: string): void {
    for (const lease of this.state.leases) {
      if (lease.state !== 'live') continue;
      this.#mark(lease.leaseId, 'dropped', reason);
      this.effects.push({ type: 'revoked', leaseId: lease.leaseId, clientId: lease.clientId, reason });
    }
  }

  #lost(leaseId: string, reason: string): void {
    const lease = this.state.leases.find((entry) => entry.leaseId === leaseId);
    if (lease?.state !== 'live' || !isOpen(this.state.phase)) return;
    this.#mark(leaseId, 'dropped', reason);
    this.#fill();
  }

  #uploaded(leaseId: string): void {
    const lease = this.state.leases.find((entry) => entry.leaseId === leaseId);
    if (lease?.state !== 'live' || !isOpen(this.state.phase)) return;
    this.#mark(leaseId, 'uploaded', null);
    if (this.state.phase === 'selecting') this.#checkSelection();
    else this.#checkTraining();
  }

  /** Its place is open again, also to the volunteer who took the upload back. */
  #withdrawn(leaseId: string, reason: string): void {
    const lease = this.state.leases.find((entry) => entry.leaseId === leaseId);
    if (lease?.state !== 'uploaded' || !isOpen(this.state.phase)) return;
    this.#mark(leaseId, 'dropped', reason);
    this.#fill();
  }

  #closeRound(): void {
    if (this.state.phase === 'selecting') this.#closeSelection();
    else if (this.state.phase === 'training') this.#endTraining('the operator closed the round');
  }

  #elapsed(ms: number): void {
    const { phase, leases, wishes, policy } = this.state;
    // Selection's clock starts with the first volunteer: an empty house abandons no rounds.
    if (
      phase === 'selecting' &&
      leases.length === 0 &&
      wishes.length === 0 &&
      this.state.remainingMs === policy.selectionMs
    ) {
      return;
    }
    if (this.state.graceMs !== null) this.#set({ graceMs: Math.max(0, this.state.graceMs - ms) });
    if (this.state.remainingMs === null) return;
    this.#set({ remainingMs: Math.max(0, this.state.remainingMs - ms) });
    if (phase === 'selecting' && (this.state.graceMs === 0 || this.state.remainingMs === 0)) {
      this.#closeSelection();
      return;
    }
    if (this.state.remainingMs > 0) return;
    if (phase === 'training') this.#endTraining('time was up');
    else if (phase === 'merging') this.#abandon('Merging took longer than its deadline.');
    else if (this.state.run === 'running') this.#open();
  }

  #quarantine(quarantined: readonly Quarantine[]): void {
    for (const { leaseId, reason } of quarantined) this.#mark(leaseId, 'quarantined', reason);
  }

  #merged(round: number, quarantined: readonly Quarantine[]): void {
    if (this.state.phase !== 'merging' || round !== this.state.round) return;
    this.#quarantine(quarantined);
    const version = this.state.version + 1;
    this.#set({ version });
    const done = version >= this.state.policy.rounds;
    this.#enter('committed', done || this.state.run !== 'running' ? null : this.state.policy.restMs, null);
    if (!done) return;
    this.#set({ run: 'completed', wishes: [] });
    this.effects.push({ type: 'run-ended', run: 'completed' });
  }

  #abandon(reason: string): void {
    this.#revokeLive(reason);
    this.#enter('abandoned', this.state.run === 'running' ? this.state.policy.restMs : null, reason);
    this.effects.push({ type: 'abandoned', round: this.state.round, reason });
  }
}
