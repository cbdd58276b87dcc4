// What a volunteer's session needs from its surroundings. The tab, the command line, the fleet and the load tool pass
// their own; the session itself knows no socket, no disk, no GPU and no wall clock.
import type {
  DeviceReport,
  EvaluationJob,
  EvaluationResult,
  Grant,
  OwnLimits,
  PublicKey,
  RankProposal,
  RunView,
  TrainingSettings,
  VolunteerNotices,
  VolunteerRequests,
} from '@weft/protocol';
import type { z } from 'zod';

export type RequestName = keyof VolunteerRequests;
export type RequestPayload<E extends RequestName> = z.output<VolunteerRequests[E]['payload']>;
export type RequestReply<E extends RequestName> = z.output<VolunteerRequests[E]['reply']>;
export type NoticeName = keyof VolunteerNotices;
export type NoticePayload<E extends NoticeName> = z.output<VolunteerNotices[E]>;

/** Messages to and from the server. Reconnects by itself; tells when it did. */
export interface Transport {
  /** Resolves with the reply, already validated; rejects with a ProtocolError, or a TransportError when the line is down. */
  request<E extends RequestName>(event: E, payload: RequestPayload<E>): Promise<RequestReply<E>>;
  /** Returns a function that stops listening. */
  onNotice<E extends NoticeName>(event: E, listener: (payload: NoticePayload<E>) => void): () => void;
  /**
   * Tells `connected: true` after every (re)connection, at once where there is one already, and `connected: false` with the
   * reason when the line breaks.
   */
  onConnection(listener: (state: { connected: boolean; reason: string | null }) => void): () => void;
  close(): void;
}

/** HTTP GET of the server's files. `path` is one of protocol's ROUTES. */
export interface Downloads {
  /** Fetches JSON; rejects with a ProtocolError for an error reply. */
  json(path: string): Promise<unknown>;
  /** Fetches bytes [begin, end) of a blob by a Range request. */
  range(sha256: string, begin: number, end: number, signal: AbortSignal): Promise<Uint8Array>;
}

/** Keeps downloaded pieces and small records between visits. Keys are paths such as `blobs/<sha256>`. */
export interface Storage {
  /** The bytes kept under this key so far, or null. */
  read(key: string): Promise<Uint8Array | null>;
  /** Length kept so far in bytes, 0 when nothing is kept. */
  size(key: string): Promise<number>;
  /** Writes `bytes` at `offset`, creating the file when needed. A full disk rejects with a StorageError. */
  writeAt(key: string, offset: number, bytes: Uint8Array): Promise<void>;
  remove(key: string): Promise<void>;
}

/** The volunteer's ECDSA P-256 key; the private half never leaves it. */
export interface Identity {
  readonly publicKey: PublicKey;
  /** base64url of the P1363 (r‖s) signature over the UTF-8 bytes of `text`. */
  sign(text: string): Promise<string>;
}

/** The keys of a volunteer: one a run, so that its runs cannot be linked by it. */
export interface Identities {
  /** The key for a run, made when there is none. `createdAt`: of the run, ISO 8601. */
  of(run: Pick<RunView, 'runId' | 'createdAt'>): Promise<Identity>;
}

/** Time, passed in so that tests need not wait. Milliseconds. */
export interface Clock {
  now(): number;
  /** Calls `task` once after `ms`; returns a function that cancels it. */
  after(ms: number, task: () => void): () => void;
  /** Calls `task` every `ms`; returns a function that ends it. */
  every(ms: number, task: () => void): () => void;
}

/** Files of the base model by Hugging Face name, such as `config.json` and `model.safetensors`. */
export type ModelFiles = ReadonlyMap<string, Uint8Array>;

export interface StepReport {
  /** 1 for the first step. */
  readonly step: number;
  readonly steps: number;
  /** Nats per labelled target token of this step's batch. */
  readonly loss: number;
  /** Labelled target tokens processed since training began. */
  readonly targetTokens: number;
  /** All tokens without padding, a second. */
  readonly tokensPerSecond: number;
}

export interface TrainingJob {
  readonly grant: Grant;
  readonly training: TrainingSettings;
  /** Start weights as served: safetensors with PEFT names, or elements of a sparse update. */
  readonly start: Uint8Array;
  /** A frozen adapter to train beside, at scale 1: safetensors with PEFT names; null where there is none. */
  readonly side: Uint8Array | null;
  /** JSONL text of the rows to train on. */
  readonly rows: string;
}

export interface TrainingResult {
  /** What was trained: safetensors, F32, same names as the start, and same shapes but for the rank where it was pruned. */
  readonly update: Uint8Array;
  /** Rank of these factors: the granted one, or what is left of it after pruning. */
  readonly rank: number;
  readonly steps: number;
  readonly targetTokens: number;
  readonly examples: number;
  readonly firstLoss: number;
  readonly lastLoss: number;
  readonly tokensPerSecond: number;
  /** Rows that were cut to the sequence length. */
  readonly truncatedRows: number;
}

/** Lets the owner slow training down or stop it early between two steps. */
export interface TrainingControl {
  readonly signal: AbortSignal;
  /** Resolves at once while running, later while paused. Awaited before every step. */
  whenRunning(): Promise<void>;
  /** When this turns true, training ends after the step in progress and delivers what it has. */
  finishEarly(): boolean;
  /** Told how many of the kernels that the first step needs are compiled; not at all where nothing has to be. */
  onCompile?(done: number, total: number): void;
  onStep(report: StepReport): void;
}

/**
 * The trainer as one volunteer uses it. Rejects with typed errors whose `code` is one of GpuError's or TrainerError's;
 * 'device-lost' and 'out-of-memory' make the session release its lease under that name.
 */
export interface Trainer {
  device(): DeviceReport;
  /** The largest of the run's ranks this device and the volunteer's own limits can carry, with a verdict for each. Throws 'no-rank-fits' when none does. */
  proposeRank(run: RunView, model: ModelFiles, limits: OwnLimits): Promise<RankProposal>;
  train(model: ModelFiles, job: TrainingJob, control: TrainingControl): Promise<TrainingResult>;
  /** Held-out loss of each task's rows (JSONL text by task). */
  evaluate(
    model: ModelFiles,
    job: EvaluationJob,
    adapter: Uint8Array | null,
    rows: ReadonlyMap<string, string>,
    signal: AbortSignal,
  ): Promise<EvaluationResult[]>;
  /** Frees the GPU. */
  close(): void;
}
