// A lease's turn on this device: it is kept alive while its round is played, and what went wrong decides whether another may be
// tried. When to ask for a lease is the session's, how a round is played round.ts's.
import type { Lease, Manifest, Receipt, ReleaseReason, RoundView } from '@weft/protocol';
import { ProtocolError } from '@weft/protocol';
import { type Condition, sleep } from './clock.ts';
import type { Device } from './device.ts';
import { codeOf, messageOf } from './errors.ts';
import type { VolunteerFiles } from './files.ts';
import { asLeaseLost, LeaseKeeper, LeaseLost } from './lease-keeper.ts';
import type { Line } from './line.ts';
import type { Clock, ModelFiles } from './ports.ts';
import { emptyProgress, playRound } from './round.ts';
import { type StateHolder, withReceipt } from './state.ts';

/** Rounds in a row that may fail on this device before it gives up. */
const MOST_FAILED_ROUNDS = 2;

export interface TurnsOptions {
  readonly files: VolunteerFiles;
  readonly device: Device;
  readonly holder: StateHolder;
  readonly condition: Condition;
  readonly clock: Clock;
  readonly hidden: () => boolean;
  onRound(round: RoundView): void;
  /** Gives a lease back. */
  release(leaseId: string, reason: ReleaseReason): Promise<void>;
  /** The device is about to be opened again: what was proposed for it no longer stands. */
  onRecovery(): void;
}

/** What one turn is taken with. */
export interface Turn {
  readonly line: Line;
  readonly lease: Lease;
  readonly manifest: Manifest;
  readonly model: ModelFiles;
  /** Rows of the volunteer's own file; null for the lease's task. */
  readonly ownRows: string | null;
  readonly signal: AbortSignal;
}

export class Turns {
  readonly #options: TurnsOptions;
  #keeper: LeaseKeeper | null = null;
  #uploadStartedAt = 0;
  #uploadMs = 0;
  #failedRounds = 0;

  constructor(options: TurnsOptions) {
    this.#options = options;
  }

  /** Failures of an earlier start no longer count. */
  startOver(): void {
    this.#failedRounds = 0;
  }

  /** Reports the lease now, where there is one. */
  beat(): void {
    this.#keeper?.beat();
  }

  revoked(leaseId: string, reason: string, lateMs: number): void {
    this.#keeper?.revoked(leaseId, reason, lateMs);
  }

  /** Resolves when the lease is done with and another may be asked for; else rejects with what ends the work. */
  async take({ line, lease, manifest, model, ownRows, signal }: Turn): Promise<void> {
    const { files, device, holder, condition, clock, hidden, onRound } = this.#options;
    const lost = new AbortController();
    const both = AbortSignal.any([signal, lost.signal]);
    holder.update({ lease, waitingFor: null, data: { ...holder.state.data, task: lease.task } });
    const keeper = new LeaseKeeper({
      line,
      lease,
      clock,
      status: () => ({
        hidden: hidden(),
        paused: holder.state.paused,
        progress: holder.state.progress ?? emptyProgress(lease),
      }),
      onRound,
      onLate: (note) => holder.update({ note }),
      onLost: (loss) => lost.abort(loss),
    });
    this.#keeper = keeper;
    try {
      const receipt = await playRound({
        line,
        files,
        trainer: device.trainer,
        clock,
        holder,
        condition,
        manifest,
        model,
        lease,
        ownRows,
        signal: both,
        onStage: () => this.#stageChanged(),
        whenRunning: () => condition.until(() => !holder.state.paused, both).then(() => undefined),
        lateUntil: () => keeper.lateUntil,
        uploadReserveMs: 2 * this.#uploadMs,
      });
      this.#delivered(receipt);
    } catch (error) {
      // From here on the lease is given up; a heartbeat would only renew it.
      keeper.close();
      await this.#failed(lease, error, signal);
    } finally {
      keeper.close();
      this.#keeper = null;
      holder.update({ lease: null, upload: null, download: null });
    }
  }

  #stageChanged(): void {
    const { holder, clock } = this.#options;
    if (holder.state.progress?.stage === 'uploading') this.#uploadStartedAt = clock.now();
    this.#keeper?.beat();
  }

  #delivered(receipt: Receipt): void {
    const { holder, clock } = this.#options;
    this.#uploadMs = clock.now() - this.#uploadStartedAt;
    this.#failedRounds = 0;
    holder.update(withReceipt(holder.state, receipt));
  }

  /** Gives the lease back under the right name; throws unless there is another round to try. */
  async #failed(lease: Lease, error: unknown, signal: AbortSignal): Promise<void> {
    const { device, holder, clock, release, onRecovery } = this.#options;
    // stop() releases by itself.
    signal.throwIfAborted();
    const loss = error instanceof LeaseLost ? error : asLeaseLost(error);
    if (loss) {
      holder.update({ note: `Round ${lease.round} went on without this update. ${loss.message}`, progress: null });
      return;
    }
    const code = codeOf(error);
    if (code === 'device-lost' || code === 'out-of-memory') {
      await release(lease.leaseId, code);
      const ranks = holder.state.run?.settings.ranks ?? [];
      onRecovery();
      const note = await device.recover(code, lease.grant.rank, ranks, error);
      holder.update({ note, progress: null });
      return;
    }
    await release(lease.leaseId, code.startsWith('data-') ? 'data' : 'failed');
    const mayPass = code === 'diverged' || (error instanceof ProtocolError && code.startsWith('upload-'));
    this.#failedRounds += 1;
    if (!mayPass || this.#failedRounds >= MOST_FAILED_ROUNDS) throw error;
    holder.update({ note: messageOf(error), progress: null });
    // The server may offer the place again at once; a moment's rest keeps a failing device from spinning.
    await sleep(clock, lease.heartbeatMs, signal);
  }
}
