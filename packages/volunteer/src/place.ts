// The queue for a place in a round: joins with a proposal and waits until a lease comes or something changes that asks
// for a fresh look. Says meanwhile what it waits for.
import type { Join, Lease, RoundView } from '@weft/protocol';
import type { Condition } from './clock.ts';
import type { Line } from './line.ts';
import type { Clock } from './ports.ts';

export interface PlaceOptions {
  readonly line: Line;
  readonly clock: Clock;
  /** Poked on every change. */
  readonly condition: Condition;
  readonly join: Join;
  readonly signal: AbortSignal;
  /** Takes the lease that came by notice, if any; it is gone afterwards. */
  takeGranted(): Lease | null;
  /** Whether something changed that makes this wish obsolete. */
  changed(): boolean;
  round(): RoundView | null;
  onWaiting(round: RoundView, reason: string | null): void;
}

/** A lease at the proposed rank, or at a smaller one this client has pruned itself to; null when {@link PlaceOptions.changed}. Rejects with the server's refusal. */
export async function obtainLease(options: PlaceOptions): Promise<Lease | null> {
  const { line, clock, condition, join, signal, takeGranted, changed, round, onWaiting } = options;
  for (;;) {
    takeGranted();
    const handshakes = line.handshakes;
    const reply = await line.request('round:join', join, signal);
    if (reply.status === 'leased') return reply.lease;
    onWaiting(reply.round, reply.reason);
    let told = round();
    const found: { lease: Lease | null } = { lease: null };
    // A lease at another rank answers an older wish, unless the run prunes: then the server grants no more than was kept.
    const granted = () => {
      const offered = takeGranted();
      const { rank } = join.proposal;
      const isPruned = offered !== null && offered.training.pruning !== null && offered.grant.rank < rank;
      if (offered && (offered.grant.rank === rank || isPruned)) found.lease = offered;
      return found.lease !== null;
    };
    const news = () => {
      const now = round();
      if (now && now !== told) onWaiting(now, null);
      told = now;
      // The server forgets a wish when its connection breaks.
      return granted() || changed() || line.handshakes !== handshakes;
    };
    await condition.until(news, signal, { clock, ms: reply.retryAfterMs });
    if (found.lease) return found.lease;
    if (changed()) return null;
  }
}
