// One hostile thing a peer can do, and what must come of it. A case tells what it saw in a word: the code of a typed error, or
// for what no error can be sent to, that the line was closed or the frame ignored.
import { type Lease, ProtocolError } from '@weft/protocol';
import type { Admin } from '../admin.ts';
import type { Peer, Volunteer } from '../peers.ts';

/** A running server as the cases find it. */
export interface Scene {
  readonly url: string;
  readonly runId: string;
  readonly admin: Admin;
  /** Has a lease, and honest bytes for it. */
  readonly attacker: Volunteer;
  readonly lease: Lease;
  readonly good: Uint8Array;
  /** Has entered, without a lease. */
  readonly bystander: Volunteer;
  /** Somebody else's. */
  readonly victimLease: Lease;
}

/** `closed`: the server ended the connection; `ignored`: it went on as if nothing had come; `accepted`: it said yes. */
export type Outcome = string;

export interface HostileCase {
  readonly kind: 'message' | 'upload' | 'request' | 'frame';
  readonly name: string;
  /** Outcomes that are right. */
  readonly expected: readonly Outcome[];
  run(scene: Scene): Promise<Outcome>;
}

/** What a request over a socket came to. */
export async function asked(peer: Peer, event: string, ...payload: unknown[]): Promise<Outcome> {
  const ack = await peer.raw(event, ...payload);
  return ack.ok ? 'accepted' : ack.error.code;
}

/** What a promise came to that rejects with a ProtocolError. */
export async function told(work: Promise<unknown>): Promise<Outcome> {
  try {
    await work;
    return 'accepted';
  } catch (error) {
    if (error instanceof ProtocolError) return error.code;
    throw error;
  }
}
