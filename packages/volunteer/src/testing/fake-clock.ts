// A clock that moves only when told to.
import type { Clock } from '../ports.ts';

interface Timer {
  at: number;
  readonly period: number | null;
  readonly task: () => void;
}

export class FakeClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  after(ms: number, task: () => void): () => void {
    return this.#add({ at: this.#now + ms, period: null, task });
  }

  every(ms: number, task: () => void): () => void {
    return this.#add({ at: this.#now + ms, period: ms, task });
  }

  #add(timer: Timer): () => void {
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Milliseconds until the next timer; null when none is set. */
  get nextIn(): number | null {
    const times = [...this.#timers].map((timer) => timer.at - this.#now);
    return times.length === 0 ? null : Math.min(...times);
  }

  /** Lets `ms` pass, running what falls due in its order, and lets promises settle in between. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#now = Math.max(this.#now, due.at);
      if (due.period === null) this.#timers.delete(due);
      else due.at += due.period;
      due.task();
    }
    this.#now = end;
    await settle();
  }
}

/** Lets everything that needs no timer run: promises, hashing, message hops. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 12; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Waits (in real time, at most `ms`) until `holds()`; throws with `what` otherwise. */
export async function eventually(holds: () => boolean, what: string, ms = 5_000): Promise<void> {
  const start = performance.now();
  while (!holds()) {
    if (performance.now() - start > ms) throw new Error(`It never happened that ${what}.`);
    await settle();
  }
}
