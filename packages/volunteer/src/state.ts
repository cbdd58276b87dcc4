// What a session shows to its owner: one immutable snapshot after another. The page and the terminal draw from nothing else.
import type {
  DeviceReport,
  Lease,
  Manifest,
  OwnLimits,
  Progress,
  RankProposal,
  Receipt,
  RoundView,
  RunView,
} from '@weft/protocol';
import { codeOf, messageOf, TransportError } from './errors.ts';
import { formatBytes, plural } from './words.ts';

export type Stage =
  /** Made, nothing asked of it yet. */
  | 'new'
  /** On its way to the server and through the handshake. */
  | 'connecting'
  /** Fetching the model, the task's rows or start weights. */
  | 'downloading'
  /** Measuring the device. */
  | 'preparing'
  /** Verdict and price are known; waits for start(). */
  | 'ready'
  /** Started; waits for a place or for the round to open. */
  | 'waiting'
  | 'training'
  | 'uploading'
  /** The owner paused it. */
  | 'paused'
  /** The owner stopped it; start() goes on. */
  | 'stopped'
  /** The run has ended. */
  | 'finished'
  /** Something that time will not change; see `error`. */
  | 'failed';

/** Loss of one local step, nats per labelled target token. */
export interface LossPoint {
  readonly round: number;
  readonly step: number;
  readonly loss: number;
}

export interface SessionFault {
  /** Stable, for "details". */
  readonly code: string;
  /** What happened, what was kept, what to do. */
  readonly message: string;
  /** Whether the session goes on trying by itself. */
  readonly retrying: boolean;
}

/** Bytes of something on its way. */
export interface Transfer {
  /** What it is, in a word or two: 'the model', 'start weights'. */
  readonly what: string;
  readonly bytes: number;
  readonly total: number;
}

export interface SessionState {
  readonly stage: Stage;
  readonly connected: boolean;
  /** pause() holds; `stage` says so too while there is something to pause. */
  readonly paused: boolean;
  /** finishRound() was asked for. */
  readonly finishing: boolean;
  readonly clientId: string | null;
  readonly run: RunView | null;
  readonly round: RoundView | null;
  /** When this phase of the round ends, in milliseconds of the session's clock; null where that is not known. */
  readonly phaseEndsAt: number | null;
  readonly manifest: Manifest | null;
  readonly device: DeviceReport | null;
  readonly proposal: RankProposal | null;
  readonly ownLimits: OwnLimits;
  /** The task now trained on, or that was asked for; null: the server's choice. With `own` it is the volunteer's file. */
  readonly data: { readonly own: boolean; readonly task: string | null; readonly examples: number | null };
  readonly lease: Lease | null;
  readonly download: Transfer | null;
  readonly progress: Progress | null;
  /** Kernels compiled of those that the first step needs; null while none are being compiled. */
  readonly compiling: { readonly done: number; readonly total: number } | null;
  /** Of this device, oldest first; the latest few thousand. */
  readonly losses: readonly LossPoint[];
  readonly upload: Transfer | null;
  readonly receipts: readonly Receipt[];
  readonly totals: { readonly rounds: number; readonly targetTokens: number; readonly uploadBytes: number };
  /** What it waits for, in a sentence; null while it does not wait. */
  readonly waitingFor: string | null;
  /** What happened last that is worth saying, such as a lease that was lost; null where there is nothing. */
  readonly note: string | null;
  readonly error: SessionFault | null;
  /** One sentence at the end. */
  readonly outcome: string | null;
}

export function initialState(ownLimits: OwnLimits, data: SessionState['data']): SessionState {
  return {
    stage: 'new',
    connected: false,
    paused: false,
    finishing: false,
    clientId: null,
    run: null,
    round: null,
    phaseEndsAt: null,
    manifest: null,
    device: null,
    proposal: null,
    ownLimits,
    data,
    lease: null,
    download: null,
    progress: null,
    compiling: null,
    losses: [],
    upload: null,
    receipts: [],
    totals: { rounds: 0, targetTokens: 0, uploadBytes: 0 },
    waitingFor: null,
    note: null,
    error: null,
    outcome: null,
  };
}

/** An error that ends something. */
export const faultOf = (error: unknown): SessionFault => ({
  code: codeOf(error),
  message: messageOf(error),
  retrying: false,
});

/** The line broke, or the server asked for patience; trying goes on. */
export function interruption(error: Error, connected: boolean) {
  const transport = error instanceof TransportError;
  const advice = transport ? 'What was downloaded and trained is kept; trying again.' : 'Trying again.';
  return {
    connected: connected && !(transport && error.code === 'disconnected'),
    error: { code: codeOf(error), message: `${error.message} ${advice}`, retrying: true },
  };
}

/** What an ended session has no more of. */
export const NOTHING_GOING_ON = {
  lease: null,
  waitingFor: null,
  upload: null,
  download: null,
  progress: null,
  compiling: null,
  finishing: false,
} as const;

/** What a delivered update adds. */
export function withReceipt({ totals, receipts }: SessionState, receipt: Receipt) {
  return {
    receipts: [...receipts, receipt],
    totals: {
      rounds: totals.rounds + 1,
      targetTokens: totals.targetTokens + receipt.targetTokens,
      uploadBytes: totals.uploadBytes + receipt.bytes,
    },
    note: `Round ${receipt.round}: ${formatBytes(receipt.bytes)} delivered, receipt ${receipt.receiptId}.`,
  };
}

/** The upload of this receipt was taken back. */
export function withoutReceipt({ totals, receipts }: SessionState, receiptId: string) {
  const receipt = receipts.find((each) => each.receiptId === receiptId);
  if (!receipt) return {};
  return {
    receipts: receipts.filter((each) => each !== receipt),
    totals: {
      rounds: totals.rounds - 1,
      targetTokens: totals.targetTokens - receipt.targetTokens,
      uploadBytes: totals.uploadBytes - receipt.bytes,
    },
    note: `Your update of round ${receipt.round} was taken back; the server has deleted it.`,
  };
}

export type StateListener = (state: SessionState) => void;

/** Stages in which there is something to pause. */
const PAUSABLE: ReadonlySet<Stage> = new Set(['waiting', 'downloading', 'training', 'uploading']);

/** Holds the snapshot and tells those who listen. */
export class StateHolder {
  readonly #listeners = new Set<StateListener>();
  #state: SessionState;
  /** The stage without a pause over it. */
  #stage: Stage;

  constructor(state: SessionState) {
    this.#state = state;
    this.#stage = state.stage;
  }

  get state(): SessionState {
    return this.#state;
  }

  update(change: Partial<Omit<SessionState, 'stage' | 'paused'>>): void {
    this.#set(change);
  }

  enter(stage: Stage): void {
    this.#stage = stage;
    this.#show(this.#state.paused);
  }

  setPaused(paused: boolean): void {
    this.#show(paused);
  }

  #show(paused: boolean): void {
    const stage = paused && PAUSABLE.has(this.#stage) ? 'paused' : this.#stage;
    if (stage !== this.#state.stage || paused !== this.#state.paused) this.#set({ stage, paused });
  }

  #set(change: Partial<SessionState>): void {
    this.#state = { ...this.#state, ...change };
    for (const listener of [...this.#listeners]) listener(this.#state);
  }

  subscribe(listener: StateListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

const transferText = (verb: string, { what, bytes, total }: Transfer): string =>
  `${verb} ${what} · ${formatBytes(bytes)} of ${formatBytes(total)}`;

function progressText({ step, steps, tokensPerSecond }: Progress, compiling: SessionState['compiling']): string {
  if (compiling) return `compiling kernels ${compiling.done} of ${compiling.total}`;
  const speed = tokensPerSecond === null ? '' : ` · ${Math.round(tokensPerSecond).toLocaleString('en')} tokens/s`;
  return step === 0 ? 'preparing the first step' : `step ${step} of ${steps}${speed}`;
}

/** One line of status: "Training on your GPU · step 12 of 40 · 1,830 tokens/s". */
export function statusLine(state: SessionState): string {
  const { stage, progress, download, upload, error } = state;
  if (error?.retrying && !state.connected && stage !== 'training') return error.message;
  switch (stage) {
    case 'new':
      return 'Not started';
    case 'connecting':
      return state.waitingFor ?? 'Connecting to the server';
    case 'downloading':
      return download ? transferText('Downloading', download) : 'Downloading';
    case 'preparing':
      return 'Measuring your GPU';
    case 'ready':
      return state.proposal ? `Ready · rank ${state.proposal.rank}` : 'Ready';
    case 'waiting':
      return state.waitingFor ?? 'Waiting for the server';
    case 'training':
      return `Training on your GPU${progress ? ` · ${progressText(progress, state.compiling)}` : ''}`;
    case 'uploading':
      return upload ? transferText('Sending', upload) : 'Sending the update';
    case 'paused':
      return `Paused${progress && progress.step > 0 ? ` at step ${progress.step} of ${progress.steps}` : ''}`;
    case 'stopped':
    case 'finished':
      return state.outcome ?? 'Finished';
    case 'failed':
      return error?.message ?? 'Failed';
  }
}

/** "3 rounds helped · 41,200 tokens" */
export function totalsLine({ totals }: SessionState): string {
  return `${plural(totals.rounds, 'round')} helped · ${plural(totals.targetTokens, 'token')}`;
}
