// A run's story: lines for people, kept for the dashboard and written to the log; events for programs, one JSON document a
// line, everything the dashboard draws.
import type { LogLine } from '@weft/protocol';
import type { Logger } from 'pino';
import type { RunStore } from '../store/run-store.ts';
import type { RunEvents, RunEventType } from './events.ts';

type Told = <T extends RunEventType>(type: T, detail: RunEvents[T]) => void;

const LINES_KEPT = 300;

export class Journal {
  readonly #store: RunStore;
  readonly #logger: Logger;
  readonly #now: () => Date;
  readonly #told: Told;
  #lines: LogLine[] = [];

  /** `told` hears of every event but the lines for people. */
  constructor(store: RunStore, logger: Logger, now: () => Date, told: Told = () => undefined) {
    this.#store = store;
    this.#logger = logger;
    this.#now = now;
    this.#told = told;
  }

  /** `about`: the round and client it concerns, for the server's log. */
  log(level: LogLine['level'], text: string, about: { round?: number; client?: string } = {}): void {
    const line: LogLine = { at: this.#now().toISOString(), level, text };
    this.#lines.push(line);
    if (this.#lines.length > LINES_KEPT) this.#lines.shift();
    this.#append({ ...line, type: 'log' });
    this.#logger[level === 'warning' ? 'warn' : level](about, text);
  }

  event<T extends RunEventType>(type: T, detail: RunEvents[T]): void {
    this.#append({ at: this.#now().toISOString(), type, ...detail });
    this.#told(type, detail);
  }

  /** A story that cannot be written (a full disk) must not stop what it tells of. */
  #append(event: Record<string, unknown>): void {
    try {
      this.#store.appendEvent(event);
    } catch (error) {
      this.#logger.error({ err: error }, 'events.jsonl misses an event');
    }
  }

  /** Takes somebody out of the story; durable when this returns. */
  rewrite(change: { line(line: string): string; text(text: string): string }): void {
    this.#store.rewriteEvents(change.line);
    this.#lines = this.#lines.map((line) => ({ ...line, text: change.text(line.text) }));
  }

  /** The server failed at something; `error` goes to its log with all causes. */
  failure(error: unknown, text: string): void {
    this.#logger.error({ err: error }, text);
  }

  lines(): LogLine[] {
    return [...this.#lines];
  }
}
