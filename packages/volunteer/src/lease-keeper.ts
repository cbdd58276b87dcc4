// Keeps one lease alive while its round is played: heartbeats, one more after every reconnection, and an eye on
// everything that ends a lease. How the round is played is round.ts's.
import { type Heartbeat, type Lease, ProtocolError, type RoundView } from '@weft/protocol';
import { isPassing, type Line } from './line.ts';
import type { Clock } from './ports.ts';

/** The lease is gone; its round is over for this volunteer. The message says why. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost';
  readonly code = 'lease-lost';
}

/** Answers that mean the server no longer knows the lease as live. */
const LOST_CODES: ReadonlySet<string> = new Set(['unknown-lease', 'lease-expired', 'round-closed', 'run-not-open']);

/** The loss an error of the server stands for, or null. */
export function asLeaseLost(error: unknown): LeaseLost | null {
  if (!(error instanceof ProtocolError) || !LOST_CODES.has(error.code)) return null;
  return new LeaseLost(error.message, { cause: error });
}

export interface KeeperOptions {
  readonly line: Line;
  readonly lease: Lease;
  readonly clock: Clock;
  readonly status: () => Omit<Heartbeat, 'leaseId'>;
  readonly onRound: (round: RoundView) => void;
  /** The lease is over, and what has begun may still be delivered: a note for the owner. */
  readonly onLate: (note: string) => void;
  readonly onLost: (loss: LeaseLost) => void;
}

export class LeaseKeeper {
  readonly #options: KeeperOptions;
  readonly #ended = new AbortController();
  readonly #stopTimer: () => void;
  #stopLate: () => void = () => undefined;
  #lateUntil: number | null = null;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#stopTimer = options.clock.every(options.lease.heartbeatMs, () => this.beat());
  }

  /** Reports now. While the line is down nothing is sent; the server renews the lease once it hears from us again. */
  beat(): void {
    const { line, lease, status, onRound } = this.#options;
    const { signal } = this.#ended;
    if (signal.aborted || !line.isAdmitted) return;
    line.once('lease:heartbeat', { leaseId: lease.leaseId, ...status() }, signal).then(
      ({ round }) => {
        if (!signal.aborted) onRound(round);
      },
      (error: unknown) => this.#failed(error),
    );
  }

  #failed(error: unknown): void {
    // A beat that did not get through is made good by the next one.
    if (this.#ended.signal.aborted || isPassing(error)) return;
    // The answers to an upload know better: its round may have ended because this very upload was in.
    if (this.#options.status().progress.stage === 'uploading') return;
    this.#lose(
      asLeaseLost(error) ?? new LeaseLost(`The server refused a heartbeat: ${String(error)}`, { cause: error }),
    );
  }

  /** When the server takes the upload no more, by the clock; null while the lease is live. */
  get lateUntil(): number | null {
    return this.#lateUntil;
  }

  /** `lateMs`: how long the server still takes the upload; 0: not any more. */
  revoked(leaseId: string, reason: string, lateMs: number): void {
    const { lease, clock, onLate } = this.#options;
    if (leaseId !== lease.leaseId || this.#ended.signal.aborted) return;
    this.#stopLate();
    if (lateMs === 0 || !this.#hasBegun()) {
      this.#lose(new LeaseLost(reason));
      return;
    }
    this.#lateUntil = clock.now() + lateMs;
    this.#stopLate = clock.after(lateMs, () => this.#lose(new LeaseLost(`${reason} The time for late work is over.`)));
    onLate(`${reason} The update may still be delivered for ${Math.ceil(lateMs / 1000)} s.`);
  }

  /** Whether there is something that could be ready in time: not before the first step. */
  #hasBegun(): boolean {
    const { stage, step } = this.#options.status().progress;
    return stage === 'uploading' || (stage === 'training' && step > 0);
  }

  #lose(loss: LeaseLost): void {
    if (this.#ended.signal.aborted) return;
    this.close();
    this.#options.onLost(loss);
  }

  close(): void {
    this.#stopTimer();
    this.#stopLate();
    this.#ended.abort(new LeaseLost('The lease has been closed.'));
  }
}
