// How often something may happen for one key (an address, an account, a client): a bucket a key that fills up again with
// time. Keys whose bucket is full again are forgotten, so memory is bounded by who asked lately.
import { ProtocolError } from '@weft/protocol';

export interface LimitRules {
  /** How many at once. */
  readonly burst: number;
  /** How many come back a second. */
  readonly perSecond: number;
}

/** `count` a minute, all of them at once if need be. */
export const perMinute = (count: number): LimitRules => ({ burst: count, perSecond: count / 60 });

interface Bucket {
  left: number;
  at: number;
}

/** Keys kept at most. Beyond, the oldest are forgotten: a flood of addresses must not fill the memory. */
const KEYS_KEPT = 100_000;

export class KeyedLimit {
  readonly #rules: LimitRules;
  readonly #now: () => number;
  readonly #buckets = new Map<string, Bucket>();

  /** `now`: monotonic milliseconds. */
  constructor(rules: LimitRules, now: () => number) {
    this.#rules = rules;
    this.#now = now;
  }

  /** Milliseconds until `key` may again; 0 when it may now. */
  waitMs(key: string): number {
    const left = this.#fill(key);
    return left >= 1 ? 0 : Math.ceil(((1 - left) / this.#rules.perSecond) * 1000);
  }

  /** Counts one of `key`, also when there is none left. */
  count(key: string): void {
    const left = Math.max(0, this.#fill(key) - 1);
    this.#buckets.delete(key);
    this.#buckets.set(key, { left, at: this.#now() });
    this.#forget();
  }

  /** Counts one of `key`. Throws ProtocolError 'rate-limited' with the time to wait when there is none left. */
  take(key: string, what: string): void {
    const wait = this.waitMs(key);
    if (wait > 0) {
      throw new ProtocolError('rate-limited', `${what}; wait ${Math.ceil(wait / 1000)} s and try again.`, {
        retryAfterMs: wait,
      });
    }
    this.count(key);
  }

  /** Takes one count of `key` back. */
  giveBack(key: string): void {
    const bucket = this.#buckets.get(key);
    if (bucket) bucket.left = Math.min(this.#rules.burst, bucket.left + 1);
  }

  #fill(key: string): number {
    const { burst, perSecond } = this.#rules;
    const bucket = this.#buckets.get(key);
    if (!bucket) return burst;
    return Math.min(burst, bucket.left + ((this.#now() - bucket.at) / 1000) * perSecond);
  }

  #forget(): void {
    const fullAfterMs = (this.#rules.burst / this.#rules.perSecond) * 1000;
    const now = this.#now();
    // Oldest first: the order of insertion, since count() inserts anew.
    for (const [key, { at }] of this.#buckets) {
      if (this.#buckets.size <= KEYS_KEPT && now - at < fullAfterMs) return;
      this.#buckets.delete(key);
    }
  }
}
