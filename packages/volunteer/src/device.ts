// The trainer of one session and what its GPU has shown it cannot do: proposals within the owner's limits, and a fresh
// device one rank smaller after the old one was lost or full.
import type { DeviceReport, OwnLimits, RankProposal, RunView } from '@weft/protocol';
import { abortable } from './clock.ts';
import { SessionError } from './errors.ts';
import type { ModelFiles, Trainer } from './ports.ts';

export type GpuFailure = 'device-lost' | 'out-of-memory';

export class Device {
  readonly #reopen: (() => Promise<Trainer>) | undefined;
  #trainer: Trainer;
  #closed = false;
  /** Largest rank tried after the GPU gave out; null while it has not. */
  #cap: { readonly rank: number; readonly because: string } | null = null;

  /** `reopen` opens a trainer on a fresh device; undefined where that cannot be done. */
  constructor(trainer: Trainer, reopen: (() => Promise<Trainer>) | undefined) {
    this.#trainer = trainer;
    this.#reopen = reopen;
  }

  get trainer(): Trainer {
    return this.#trainer;
  }

  report(): DeviceReport {
    return this.#trainer.device();
  }

  /** Asks the trainer anew. Rejects with its errors, such as 'no-rank-fits'. */
  async propose(run: RunView, model: ModelFiles, limits: OwnLimits, signal: AbortSignal): Promise<RankProposal> {
    const cap = this.#cap;
    const tried = cap ? { ...limits, maxRank: Math.min(cap.rank, limits.maxRank ?? cap.rank) } : limits;
    const proposal = await abortable(this.#trainer.proposeRank(run, model, tried), signal);
    if (!cap) return proposal;
    // The owner set no such limit; the verdicts say what did.
    const verdicts = proposal.verdicts.map((verdict) =>
      verdict.rank > cap.rank && verdict.rank <= (limits.maxRank ?? verdict.rank)
        ? { ...verdict, fits: false, reason: cap.because }
        : verdict,
    );
    return { ...proposal, ownLimits: limits, verdicts };
  }

  /**
   * Goes on after the GPU failed at `rank`: returns the sentence to show. Throws a SessionError of that name when there is
   * no smaller rank or no fresh device.
   */
  async recover(failure: GpuFailure, rank: number, ranks: readonly number[], cause: unknown): Promise<string> {
    const what = failure === 'device-lost' ? 'The GPU was lost' : 'The GPU ran out of memory';
    const next = ranks.filter((candidate) => candidate < rank).at(-1);
    this.#trainer.close();
    this.#closed = true;
    if (!this.#reopen || next === undefined) {
      const why = next === undefined ? 'and the run has no smaller rank' : 'and no new device can be opened here';
      throw new SessionError(
        failure,
        `${what} at rank ${rank}, ${why}. The lease was given back and the model is kept; close other programs that use the GPU, then start again.`,
        { cause },
      );
    }
    this.#cap = { rank: next, because: `${what} at rank ${rank} during this visit.` };
    await this.#open(this.#reopen);
    return `${what} at rank ${rank}; the lease was given back. Going on with a fresh device at rank ${next} or less.`;
  }

  /** Opens a fresh device where the last one was given up, and forgets what it could not do; true when it did. */
  async revive(): Promise<boolean> {
    if (!this.#closed || !this.#reopen) return false;
    this.#cap = null;
    await this.#open(this.#reopen);
    return true;
  }

  async #open(reopen: () => Promise<Trainer>): Promise<void> {
    this.#trainer = await reopen();
    this.#closed = false;
  }

  close(): void {
    if (!this.#closed) this.#trainer.close();
    this.#closed = true;
  }
}
