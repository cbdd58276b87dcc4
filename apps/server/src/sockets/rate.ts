// How much one socket may ask: two buckets, one of messages and one of bytes, that fill up again with time.
import { ProtocolError } from '@weft/protocol';

export interface RateRules {
  readonly messagesPerSecond: number;
  readonly messageBurst: number;
  readonly bytesPerSecond: number;
  readonly byteBurst: number;
}

/** Room for an upload over a fast local network (128 KiB chunks, two in flight); far from what a flood would need. */
export const DEFAULT_RATE: RateRules = {
  messagesPerSecond: 400,
  messageBurst: 800,
  bytesPerSecond: 64 * 1024 * 1024,
  byteBurst: 64 * 1024 * 1024,
};

export class RateLimit {
  readonly #rules: RateRules;
  readonly #now: () => number;
  #messages: number;
  #bytes: number;
  #at: number;

  /** `now`: monotonic milliseconds. */
  constructor(rules: RateRules, now: () => number) {
    this.#rules = rules;
    this.#now = now;
    this.#messages = rules.messageBurst;
    this.#bytes = rules.byteBurst;
    this.#at = now();
  }

  /** Counts one message. Throws ProtocolError 'rate-limited' with the time to wait. */
  take(bytes: number): void {
    const { messagesPerSecond, messageBurst, bytesPerSecond, byteBurst } = this.#rules;
    const now = this.#now();
    const seconds = (now - this.#at) / 1000;
    this.#at = now;
    this.#messages = Math.min(messageBurst, this.#messages + seconds * messagesPerSecond);
    this.#bytes = Math.min(byteBurst, this.#bytes + seconds * bytesPerSecond);
    if (this.#messages < 1 || this.#bytes < bytes) {
      const wait = Math.max((1 - this.#messages) / messagesPerSecond, (bytes - this.#bytes) / bytesPerSecond, 0.05);
      throw new ProtocolError('rate-limited', 'Too many messages or bytes at once; wait and send again.', {
        retryAfterMs: Math.ceil(wait * 1000),
      });
    }
    this.#messages -= 1;
    this.#bytes -= bytes;
  }
}
