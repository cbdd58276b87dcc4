// What the page and its worker say to each other. The page asks through Comlink; the worker answers with snapshots over a
// message port of its own. Types only: the page loads nothing of the worker's packages.
import type { ForgetReply, OwnLimits, RankVerdict, Receipt, RoundView, RunState } from '@weft/protocol';
import type { Stage, Transfer } from '@weft/volunteer';

/** What to train on, as chosen on the page. */
export type DataWish =
  | { readonly kind: 'task'; readonly task: string | null }
  | { readonly kind: 'own'; readonly file: File; readonly consent: true };

/** What is known of a chosen file after reading it here. */
export type DataCheck =
  | {
      readonly ok: true;
      readonly rows: number;
      /** Rows that will be cut to the run's sequence length; null while the model is not here to count tokens. */
      readonly cut: number | null;
      /** Rows with nothing to learn after the cut. */
      readonly unlabelled: number | null;
    }
  | { readonly ok: false; readonly message: string; readonly code: string };

/** What became of a wish about one's own work. */
export type Answer<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly message: string; readonly code: string };

export interface OpenOptions {
  /** null: the server's newest run. */
  readonly runId: string | null;
  /** The invite the page's address carried; null for none. */
  readonly invite: string | null;
  readonly limits: OwnLimits;
  readonly hidden: boolean;
  /** Measure which kernel variants are fastest here, and keep it; the address `?tuning=off` turns it off. */
  readonly tuning: boolean;
}

/** Carried out in the order asked. Failures of the session are in its snapshots, not rejections. */
export interface WorkerApi {
  /** Opens GPU and session, connects, and measures the device. Snapshots go to `port` from now on. */
  open(port: MessagePort, options: OpenOptions): void;
  /** After a failure: opens and prepares again. */
  retry(): void;
  start(): void;
  pause(): void;
  resume(): void;
  finishRound(): void;
  stop(): void;
  setLimits(limits: OwnLimits): Promise<void>;
  /** Reads a file here, in the worker, and says whether it can be trained on. Nothing of it is sent. */
  checkFile(file: File): Promise<DataCheck>;
  chooseData(wish: DataWish): Promise<DataCheck>;
  /** All receipts kept in this browser, as the text of one file for `weft verify`. */
  receiptsFile(): Promise<Answer<string>>;
  /** Takes back an update that is not merged yet. */
  withdraw(receiptId: string): Promise<Answer<null>>;
  /** Has the server forget this volunteer, and deletes key, receipts and files here. The page cannot go on after it. */
  forget(): Promise<Answer<ForgetReply>>;
  setHidden(hidden: boolean): void;
  /** The page goes away: gives the lease back while there is time. */
  leave(): void;
}

/** One thing that leaves the device, from the protocol's schemas. */
export interface LeavingField {
  readonly event: string;
  readonly field: string;
}

export interface RunFacts {
  readonly runId: string;
  readonly name: string;
  readonly purpose: string;
  readonly operator: string;
  readonly state: RunState;
  readonly rounds: number;
  readonly roundsCommitted: number;
  /** How it ended, in a sentence; null while it goes on. */
  readonly outcome: string | null;
  readonly localSteps: number;
  readonly sequenceLength: number;
  readonly allowOwnFiles: boolean;
  readonly model: { readonly name: string; readonly licence: string; readonly parameters: number };
  readonly tasks: readonly {
    readonly name: string;
    readonly title: string;
    readonly definition: string;
    readonly licence: string;
    readonly trainRows: number;
  }[];
}

export interface LeaseFacts {
  readonly round: number;
  readonly rank: number;
  /** A sparse update is trained, the same at every rank. */
  readonly sparse: boolean;
  readonly steps: number;
  readonly startVersion: number;
  readonly task: string | null;
}

export interface Fault {
  readonly code: string;
  readonly message: string;
  readonly retrying: boolean;
}

/** Everything the page draws. */
export interface TabState {
  readonly stage: Stage;
  readonly connected: boolean;
  readonly paused: boolean;
  readonly finishing: boolean;
  readonly clientId: string | null;
  readonly run: RunFacts | null;
  readonly round: RoundView | null;
  /** When the phase ends, as Date.now() counts; null where unknown. */
  readonly phaseEndsAt: number | null;
  /** Bytes of the model's files; null before the list of files is here. */
  readonly modelBytes: number | null;
  /** Bytes of it that were not kept from an earlier visit; null before that is known. */
  readonly missingBytes: number | null;
  /** From start() until it has stopped, finished or failed, whatever the stage. */
  readonly helping: boolean;
  /** Set while a large download waits for the volunteer's word. */
  readonly asksToDownload: boolean;
  readonly device: { readonly label: string; readonly software: boolean } | null;
  readonly rank: number | null;
  readonly verdicts: readonly RankVerdict[];
  readonly ownLimits: OwnLimits;
  readonly data: { readonly own: boolean; readonly task: string | null; readonly examples: number | null };
  readonly lease: LeaseFacts | null;
  readonly download: Transfer | null;
  readonly upload: Transfer | null;
  readonly step: number;
  readonly steps: number;
  /** Kernels compiled of those that the first step needs; null while none are being compiled. */
  readonly compiling: { readonly done: number; readonly total: number } | null;
  /** Loss of each local step so far, oldest first, nats per token. */
  readonly losses: readonly number[];
  readonly receipts: readonly Receipt[];
  readonly totals: { readonly rounds: number; readonly targetTokens: number; readonly uploadBytes: number };
  readonly status: string;
  readonly note: string | null;
  readonly error: Fault | null;
  readonly outcome: string | null;
  readonly leaving: readonly LeavingField[];
  /** Said when this window keeps no files between visits. */
  readonly storageNote: string | null;
}
