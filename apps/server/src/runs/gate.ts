// The door of a server that is to stop: what has come in is finished, what knocks later is told to come back.
import { setTimeout as pause } from 'node:timers/promises';
import { ProtocolError } from '@weft/protocol';

/** A server that is restarted is back about then; the spread keeps its clients from coming all at once. */
const RETRY_AFTER_MS = 5_000;
const RETRY_SPREAD_MS = 10_000;

export class Gate {
  #closed = false;
  readonly #inside = new Set<Promise<unknown>>();

  /** Runs `work`. Throws ProtocolError 'server-stopping' once the gate is closed. */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) {
      throw new ProtocolError('server-stopping', 'The server is being stopped. Come back when it runs again.', {
        retryAfterMs: RETRY_AFTER_MS + Math.floor(Math.random() * RETRY_SPREAD_MS),
      });
    }
    const working = work();
    this.#inside.add(working);
    try {
      return await working;
    } finally {
      this.#inside.delete(working);
    }
  }

  /** Lets nobody in any more; resolves once all inside are done, or after `ms`. Returns how many are not. */
  async close(ms: number): Promise<number> {
    this.#closed = true;
    const deadline = new AbortController();
    const late = pause(ms, undefined, { signal: deadline.signal }).catch(() => undefined);
    await Promise.race([Promise.allSettled(this.#inside), late]);
    deadline.abort();
    return this.#inside.size;
  }
}
