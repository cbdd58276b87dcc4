// The vocabulary of the round machine: state, events, effects. All of it is plain JSON, so that the state can be written
// to disk as it is and a run resumed from it. Times are milliseconds of running server, never of the wall clock.
import type { Phase, RunState } from '@weft/protocol';

/** The run's rules, fixed when it is created. */
export interface Policy {
  /** `buffered`: no rounds of one cohort; every `goal` uploads are merged while the others train on. */
  readonly mode: 'synchronous' | 'buffered';
  /** Uploads at which training ends, or a buffer is merged. */
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
  /** Ranks a client may have, ascending: the tiers that places are shared over. */
  readonly ranks: readonly number[];
  /** Share places over the ranks, so that quick tiers cannot take them all. */
  readonly stratify: boolean;
  /** Who may train at once where the run is buffered. */
  readonly concurrency: number;
  /** Versions an upload or a lease of a buffered run may lag behind. */
  readonly maxStaleness: number;
  /** Committed rounds after which the run is complete. */
  readonly rounds: number;
  readonly selectionMs: number;
  /** How long selection stays open for more than the goal. */
  readonly graceMs: number;
  readonly trainingMs: number;
  readonly mergingMs: number;
  /** How long those who were too late may still deliver; 0: not at all. */
  readonly lateMs: number;
  /** Pause between the end of a round and the next one; doubled with every round abandoned in a row. */
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
  /** The round in progress when it was granted. */
  readonly round: number;
  /** Version of the global adapter it starts from. */
  readonly version: number;
}

/** Work that missed its round: still expected, or here and waiting for a merge that settles it. */
export interface LateEntry extends LeaseEntry {
  /** Time left to deliver. */
  readonly remainingMs: number;
  /** Its receipt is on disk. */
  readonly arrived: boolean;
  /** The merge it was in failed; it is in no other. */
  readonly tried: boolean;
}

/** A merge that goes on while the next buffer fills. */
export interface MergeInProgress {
  readonly round: number;
  readonly leases: readonly LeaseEntry[];
  readonly remainingMs: number;
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
  /** Uploads of earlier rounds, or of leases that ran out: expected, or not settled yet. */
  readonly late: readonly LateEntry[];
  /** Of a buffered run; null while nothing is merged beside training. */
  readonly merge: MergeInProgress | null;
  /** Volunteers connected to the run. */
  readonly present: number;
  /** Those who wait for a place, first come first. */
  readonly wishes: readonly Wish[];
  /** Rounds abandoned in a row. */
  readonly failures: number;
  /** Why the round waits or ended as it did, or what its operator said. */
  readonly reason: string | null;
  /** What the operator said when stopping the run. */
  readonly ending: string | null;
}

export interface Quarantine {
  readonly leaseId: string;
  readonly reason: string;
}

/** `reason`: what the operator said, for people to read. */
export type MachineEvent =
  | { readonly type: 'start'; readonly reason?: string | null | undefined }
  | { readonly type: 'pause'; readonly reason?: string | null | undefined }
  | { readonly type: 'stop'; readonly reason?: string | null | undefined }
  | { readonly type: 'close-round'; readonly reason?: string | null | undefined }
  /** Gives the round in progress up; the run goes on. */
  | { readonly type: 'abort-round'; readonly reason?: string | null | undefined }
  /** Adds to the deadline of the phase in progress. */
  | { readonly type: 'extend'; readonly ms: number; readonly reason?: string | null | undefined }
  | { readonly type: 'elapsed'; readonly ms: number }
  /** Volunteers connected to the run, whether or not they ask for anything. */
  | { readonly type: 'present'; readonly count: number }
  | { readonly type: 'wish'; readonly wish: Wish }
  | { readonly type: 'withdraw'; readonly clientId: string }
  /** A lease ran out (`late`: it may still deliver for a while) or was given back. */
  | { readonly type: 'lost'; readonly leaseId: string; readonly reason: string; readonly late?: boolean | undefined }
  /** The receipt of this lease's upload is on disk. */
  | { readonly type: 'uploaded'; readonly leaseId: string }
  /** Its volunteer has taken an upload back, or it may no longer count. */
  | { readonly type: 'withdrawn'; readonly leaseId: string; readonly reason: string }
  /** A volunteer asked to be forgotten: its leases go on under another id. */
  | { readonly type: 'forgotten'; readonly clientId: string; readonly pseudonym: string }
  /** The commit of this round is on disk; `late`: leases of late work that it merged or credited. */
  | {
      readonly type: 'merged';
      readonly round: number;
      readonly quarantined: readonly Quarantine[];
      readonly late?: readonly string[] | undefined;
      readonly outcome?: string | undefined;
    }
  /** `late`: leases of late work that were in the merge. */
  | {
      readonly type: 'merge-failed';
      readonly round: number;
      readonly reason: string;
      readonly quarantined: readonly Quarantine[];
      readonly late?: readonly string[] | undefined;
    }
  /** The server has restarted with this state. */
  | { readonly type: 'resumed' };

export type Effect =
  | { readonly type: 'granted'; readonly lease: LeaseEntry }
  /** `lateMs`: how long its upload is still taken; 0: it is not. */
  | {
      readonly type: 'revoked';
      readonly leaseId: string;
      readonly clientId: string;
      readonly reason: string;
      readonly lateMs: number;
    }
  | { readonly type: 'phase'; readonly round: number; readonly phase: Phase; readonly reason: string | null }
  /** Check and merge this round's uploads and the late work, then answer with `merged` or `merge-failed`. */
  | { readonly type: 'merge'; readonly round: number }
  | { readonly type: 'abandoned'; readonly round: number; readonly reason: string }
  /** No merge will settle this work any more: credit it. */
  | { readonly type: 'credit'; readonly late: readonly LateEntry[] }
  | { readonly type: 'run-ended'; readonly run: 'completed' | 'stopped' };

export interface Transition {
  readonly state: MachineState;
  readonly effects: readonly Effect[];
}
