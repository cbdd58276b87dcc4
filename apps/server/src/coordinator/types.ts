// The vocabulary of the round machine: state, events, effects. All of it is plain JSON, so that the state can be written
// to disk as it is and a run resumed from it. Times are milliseconds of running server, never of the wall clock.
import type { Phase, RunState } from '@weft/protocol';

/** The run's rules, fixed when it is created. */
export interface Policy {
  /** Uploads at which training ends. */
  readonly goal: number;
  /** Accepted uploads a merge takes at least. */
  readonly minimum: number;
  /** The same once somebody trains on own files. */
  readonly ownFileMinimum: number;
  /** Cohort by seed, no over-selection, no second offers; training ends when all have reported or dropped. */
  readonly deterministic: boolean;
  readonly seed: string;
  /** Served tasks, given out by turns to those who leave the choice to the server. */
  readonly tasks: readonly string[];
  /** Committed rounds after which the run is complete. */
  readonly rounds: number;
  readonly selectionMs: number;
  /** How long selection stays open for more than the goal. */
  readonly graceMs: number;
  readonly trainingMs: number;
  readonly mergingMs: number;
  /** Pause between the end of a round and the next one. */
  readonly restMs: number;
}

/** A volunteer's wish to train. `leaseId` becomes the lease's once granted. */
export interface Wish {
  readonly leaseId: string;
  readonly clientId: string;
  /** What the client is sorted and seeded by: its id, or its name in deterministic mode. */
  readonly key: string;
  readonly rank: number;
  /** The task asked for; null leaves it to the server. Meaningless with `own`. */
  readonly task: string | null;
  /** Trains on the volunteer's own file. */
  readonly own: boolean;
}

export type LeaseState = 'live' | 'uploaded' | 'quarantined' | 'dropped';

export interface LeaseEntry extends Wish {
  readonly state: LeaseState;
  /** Why it was dropped or quarantined. */
  readonly reason: string | null;
}

export interface MachineState {
  readonly policy: Policy;
  readonly run: RunState;
  /** Version of the global adapter: committed rounds so far. */
  readonly version: number;
  /** 0 before the first round. Abandoned rounds count. */
  readonly round: number;
  readonly phase: Phase;
  /** Time left in this phase; null while its clock stands still. */
  readonly remainingMs: number | null;
  /** Time left for more than the goal to come; null before the goal is reached. */
  readonly graceMs: number | null;
  /** Leases at the close of selection: how many are offered again when lost. */
  readonly places: number;
  readonly leases: readonly LeaseEntry[];
  /** Volunteers connected to the run. */
  readonly present: number;
  /** Those who wait for a place, first come first. */
  readonly wishes: readonly Wish[];
  /** Why the round waits or ended as it did. */
  readonly reason: string | null;
}

export interface Quarantine {
  readonly leaseId: string;
  readonly reason: string;
}

export type MachineEvent =
  | { readonly type: 'start' }
  | { readonly type: 'pause' }
  | { readonly type: 'stop' }
  | { readonly type: 'close-round' }
  | { readonly type: 'elapsed'; readonly ms: number }
  /** Volunteers connected to the run, whether or not they ask for anything. */
  | { readonly type: 'present'; readonly count: number }
  | { readonly type: 'wish'; readonly wish: Wish }
  | { readonly type: 'withdraw'; readonly clientId: string }
  /** A lease ran out or was given back. */
  | { readonly type: 'lost'; readonly leaseId: string; readonly reason: string }
  /** The receipt of this lease's upload is on disk. */
  | { readonly type: 'uploaded'; readonly leaseId: string }
  /** Its volunteer has taken an upload back, or it may no longer count. */
  | { readonly type: 'withdrawn'; readonly leaseId: string; readonly reason: string }
  /** A volunteer asked to be forgotten: its leases go on under another id. */
  | { readonly type: 'forgotten'; readonly clientId: string; readonly pseudonym: string }
  /** The commit of this round is on disk. */
  | { readonly type: 'merged'; readonly round: number; readonly quarantined: readonly Quarantine[] }
  | {
      readonly type: 'merge-failed';
      readonly round: number;
      readonly reason: string;
      readonly quarantined: readonly Quarantine[];
    }
  /** The server has restarted with this state. */
  | { readonly type: 'resumed' };

export type Effect =
  | { readonly type: 'granted'; readonly lease: LeaseEntry }
  | { readonly type: 'revoked'; readonly leaseId: string; readonly clientId: string; readonly reason: string }
  | { readonly type: 'phase'; readonly round: number; readonly phase: Phase; readonly reason: string | null }
  /** Check and merge this round's uploads, then answer with `merged` or `merge-failed`. */
  | { readonly type: 'merge'; readonly round: number }
  | { readonly type: 'abandoned'; readonly round: number; readonly reason: string }
  | { readonly type: 'run-ended'; readonly run: 'completed' | 'stopped' };

export interface Transition {
  readonly state: MachineState;
  readonly effects: readonly Effect[];
}
