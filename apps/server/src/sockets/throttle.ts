// Notices that would come in bursts: one goes out soon after the first cause, the next at the earliest a while later, and
// the latest always.

/** Causes this close together belong to one event; its notice should show their end, not their middle. */
const GATHER_MS = 10;

export class Throttle {
  readonly #everyMs: number;
  readonly #onFailure: (error: unknown) => void;
  readonly #waiting = new Map<string, { timer: NodeJS.Timeout; work: (() => void) | null }>();

  constructor(everyMs: number, onFailure: (error: unknown) => void) {
    this.#everyMs = everyMs;
    this.#onFailure = onFailure;
  }

  /** Runs `work` soon; of several works of one key that wait, only the last. */
  readonly later = (key: string, work: () => void): void => {
    const waiting = this.#waiting.get(key);
    if (waiting) waiting.work = work;
    else this.#hold(key, GATHER_MS, work);
  };

  #hold(key: string, ms: number, work: (() => void) | null): void {
    const timer = setTimeout(() => {
      const held = this.#waiting.get(key);
      this.#waiting.delete(key);
      if (!held?.work) return;
      this.#hold(key, this.#everyMs, null);
      try {
        held.work();
      } catch (error) {
        this.#onFailure(error);
      }
    }, ms);
    this.#waiting.set(key, { timer, work });
  }

  close(): void {
    for (const { timer } of this.#waiting.values()) clearTimeout(timer);
    this.#waiting.clear();
  }
}
