// Giving a place back. Best effort and soon over: a lease that the server does not hear of again runs out by itself.
import type { ReleaseReason } from '@weft/protocol';
import { messageOf, TransportError } from './errors.ts';
import type { Line } from './line.ts';
import type { Clock } from './ports.ts';

const PATIENCE_MS = 3_000;

/** Gives a lease back; resolves with what the owner should know when the server did not confirm it, else null. */
export const releaseLease = (
  line: Line,
  clock: Clock,
  leaseId: string,
  reason: ReleaseReason,
): Promise<string | null> =>
  patiently(line, clock, (signal) => line.once('lease:release', { leaseId, reason }, signal));

/** Takes back the wish for a place. */
export const leaveRound = (line: Line, clock: Clock): Promise<string | null> =>
  patiently(line, clock, (signal) => line.once('round:leave', {}, signal));

async function patiently(
  line: Line,
  clock: Clock,
  request: (signal: AbortSignal) => Promise<unknown>,
): Promise<string | null> {
  // A broken connection has withdrawn the wish already, and the lease waits for its end.
  if (!line.isAdmitted) return null;
  const patience = new AbortController();
  const late = () => patience.abort(new TransportError('timeout', 'The server did not answer in time.'));
  const cancel = clock.after(PATIENCE_MS, late);
  try {
    await request(patience.signal);
    return null;
  } catch (error) {
    return `The server did not confirm that the place was given back; it is freed when the lease runs out. ${messageOf(error)}`;
  } finally {
    cancel();
  }
}
