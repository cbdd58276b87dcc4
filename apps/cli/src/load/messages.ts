// What `weft load` and its processes say to each other.
import type { LoadPlan } from './plan.ts';
import type { TallyData } from './tally.ts';

export type ToCrew =
  /** Take your share of the plan's volunteers: every `plan.processes`-th from `first` on. */
  | { readonly type: 'start'; readonly plan: LoadPlan; readonly first: number }
  /** Count times of answers from now on. */
  | { readonly type: 'measure' }
  /** Leave, report, end. */
  | { readonly type: 'stop' };

/** Where the volunteers of one process stand. */
export interface Status {
  /** Began to connect. */
  readonly arrived: number;
  /** Through the handshake, on a line that stands. */
  readonly admitted: number;
  /** The honest among them. */
  readonly honestAdmitted: number;
  readonly leased: number;
  /** The run has ended for them. */
  readonly finished: number;
  readonly receipts: number;
  readonly errors: number;
  /** The run's version, as far as any of them knows; null before the first was admitted. */
  readonly version: number | null;
  readonly runId: string | null;
}

export interface CrewReport {
  readonly tally: TallyData;
  readonly rssBytes: number;
  /** Milliseconds by which this process's event loop was late: what it adds to the times it measures. */
  readonly loopDelayP99Ms: number;
}

export type FromCrew =
  | { readonly type: 'status'; readonly status: Status }
  | { readonly type: 'report'; readonly report: CrewReport };
