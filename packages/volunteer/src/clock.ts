// Waiting, on a clock that is passed in: sleeps, back-off, conditions. Everything here ends at once when its signal aborts.
import type { Clock } from './ports.ts';

/** The host's own clock: monotonic milliseconds. */
export function systemClock(): Clock {
  return {
    now: () => performance.now(),
    after(ms, task) {
      const timer = setTimeout(task, ms);
      return () => clearTimeout(timer);
    },
    every(ms, task) {
      const timer = setInterval(task, ms);
      return () => clearInterval(timer);
    },
  };
}

const FIRST_DELAY_MS = 1_000;
const LONGEST_DELAY_MS = 30_000;

/** Milliseconds to wait before attempt `attempt` (0 for the first repetition): doubling, half of it by chance. */
export function backoffMs(attempt: number, random: () => number): number {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return Math.round(ceiling * (0.5 + 0.5 * random()));
}

/** Resolves after `ms`; rejects with the signal's reason when that comes first. */
export function sleep(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      cancel();
      reject(signal.reason);
    };
    const cancel = clock.after(ms, () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** `promise`, or a rejection with the signal's reason when that comes first. The work itself goes on unheard. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** A condition variable: whoever changes something pokes, whoever waits looks again. */
export class Condition {
  readonly #waiting = new Set<() => void>();

  poke(): void {
    for (const look of [...this.#waiting]) look();
  }

  /** Resolves true once `holds()`, false after `timeout.ms`; rejects with the signal's reason. */
  until(holds: () => boolean, signal: AbortSignal, timeout?: { clock: Clock; ms: number }): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void) => {
        this.#waiting.delete(look);
        signal.removeEventListener('abort', onAbort);
        cancel?.();
        settle();
      };
      const onAbort = () => finish(() => reject(signal.reason));
      const look = () => {
        if (holds()) finish(() => resolve(true));
      };
      const cancel = timeout?.clock.after(timeout.ms, () => finish(() => resolve(false)));
      if (signal.aborted) {
        onAbort();
        return;
      }
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(look);
      look();
    });
  }
}
