// Who looks on while runs live: metrics count, alerts watch. Calls return at once and never throw; a run that nobody observes
// is the same run.
import type { AlertKind } from '@weft/protocol';
import type { RunEvents } from './events.ts';

export interface RunObserver {
  /** What was just added to the run's events. */
  event<T extends keyof RunEvents>(runId: string, type: T, detail: RunEvents[T]): void;
  /** Something is wrong with the run, in a sentence that says what to do; null when it no longer is. True when it is news. */
  alert(runId: string, kind: AlertKind, text: string | null): boolean;
}

/** Several observers as one. */
export const observers = (...all: readonly Partial<RunObserver>[]): RunObserver => ({
  event: (runId, type, detail) => {
    for (const one of all) one.event?.(runId, type, detail);
  },
  alert: (runId, kind, text) => all.map((one) => one.alert?.(runId, kind, text) ?? false).some(Boolean),
});
