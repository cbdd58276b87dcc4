// The largest of everything a peer may send, in one place: docs/security.md lists exactly these, and a test compares the
// two and tries each from outside. What a schema bounds besides (names, arrays, numbers) is in the protocol.
import { MAX_INVITE_LENGTH, MAX_MESSAGE_BYTES, ProtocolError } from '@weft/protocol';

export const SIZES = {
  /** Bytes of the body of an HTTP request. */
  httpBodyBytes: 16 * 1024,
  /** Bytes of all its header lines. */
  httpHeaderBytes: 16 * 1024,
  /** Characters of its path and query. */
  httpUrlCharacters: 2 * 1024,
  /** Milliseconds in which a request's header lines must have arrived. */
  httpHeaderMs: 10_000,
  /** Milliseconds in which a request must have arrived whole. */
  httpRequestMs: 15_000,
  /** Bytes of a Socket.IO message. */
  socketMessageBytes: MAX_MESSAGE_BYTES,
  /** Levels of objects and lists in a message. */
  messageDepth: 12,
  /** Values in a message, those of inner objects and lists included. */
  messageValues: 20_000,
  /** Characters of an invite. */
  inviteCharacters: MAX_INVITE_LENGTH,
} as const;

/** Throws ProtocolError 'bad-message' for a payload deeper or of more values than any message has. */
export function checkShape(payload: unknown): void {
  const { messageDepth, messageValues } = SIZES;
  let values = 0;
  let level: unknown[] = [payload];
  for (let depth = 0; level.length > 0; depth += 1) {
    const next: unknown[] = [];
    for (const value of level) {
      if (value === null || typeof value !== 'object' || value instanceof Uint8Array) continue;
      const inner: unknown[] = Object.values(value);
      values += inner.length;
      if (values > messageValues || depth >= messageDepth) {
        throw new ProtocolError(
          'bad-message',
          `The message is deeper than ${messageDepth} levels or has more than ${messageValues} values.`,
        );
      }
      for (const each of inner) next.push(each);
    }
    level = next;
  }
}
