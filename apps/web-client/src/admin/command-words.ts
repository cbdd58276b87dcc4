// The commands as data: what their buttons and dialogs say, and when the round machine would do anything about them. Pure.
import type { RoundView, RunView } from '@weft/protocol';
import { quantity } from '../shared/format.ts';

/** The commands that are asked about first. */
export type AskedCommand = 'pause' | 'extend' | 'close-round' | 'abort-round' | 'stop';

type Words = (run: RunView, round: RoundView) => string;

export interface CommandWords {
  readonly label: string;
  readonly hint: string;
  readonly title: Words;
  readonly about: Words;
  readonly confirm: string;
  /** The button that changes nothing. */
  readonly keep: string;
  readonly losesWork: boolean;
}

const isBuffered = (run: RunView): boolean => run.settings.mode === 'buffered';

export const COMMANDS: Readonly<Record<AskedCommand, CommandWords>> = {
  pause: {
    label: 'Pause',
    hint: 'Open no further round until you resume',
    title: (run) => `Pause ${run.settings.name}?`,
    about: (_, { phase, round }) =>
      phase === 'selecting'
        ? `Round ${round} still selects and opens again with Resume. Volunteers keep their tabs open and need not do anything.`
        : `Round ${round} goes on to its end; the next one waits for Resume. Volunteers need not do anything.`,
    confirm: 'Pause the run',
    keep: 'Keep it running',
    losesWork: false,
  },
  extend: {
    label: 'Extend',
    hint: 'Give the phase in progress more time',
    title: (_, { round }) => `Give round ${round} more time?`,
    about: (_, { phase }) =>
      `Its ${phase === 'selecting' ? 'selection' : phase} ends so much later. Later rounds keep the time of the settings.`,
    confirm: 'Extend the round',
    keep: 'Cancel',
    losesWork: false,
  },
  'close-round': {
    label: 'Close round',
    hint: 'Wait for no more and go on with what is there, if the minimum is met',
    title: (_, { round }) => `Close round ${round} now?`,
    about: (run, { phase, uploaded, minimum }) => {
      if (phase === 'selecting')
        return `Training begins with those who are here; with fewer than ${minimum} the round is abandoned.`;
      const others = isBuffered(run)
        ? 'Those who still train go on and are merged later.'
        : 'Those who still train have their time for late work.';
      return `What is in is merged: ${quantity(uploaded, 'upload')}, of which ${minimum} are needed. ${others}`;
    },
    confirm: 'Close the round',
    keep: 'Cancel',
    losesWork: false,
  },
  'abort-round': {
    label: 'Abort round',
    hint: 'Drop the round and everything that was sent for it',
    title: (_, { round }) => `Abort round ${round}?`,
    about: (_, { uploaded, training }) =>
      `${quantity(uploaded, 'upload')} and the work of ${quantity(training, 'device')} in training are dropped and never merged. The next round opens after it.`,
    confirm: 'Abort the round',
    keep: 'Keep the round',
    losesWork: true,
  },
  stop: {
    label: 'Stop',
    hint: 'End the run for good',
    title: (run) => `Stop ${run.settings.name} for good?`,
    about: ({ roundsCommitted }) =>
      `The round in progress is dropped. The ${roundsCommitted === 1 ? 'version' : 'versions'} committed so far and their adapters stay. A stopped run cannot go on; a paused one can.`,
    confirm: 'Stop the run',
    keep: 'Keep it running',
    losesWork: true,
  },
};

/** Whether the run is in a state in which the command changes anything. */
export function isPossible(name: AskedCommand, { state }: RunView, { phase, remainingMs }: RoundView): boolean {
  if (state !== 'running' && state !== 'paused') return name === 'stop' && state === 'created';
  const open = phase === 'selecting' || phase === 'training';
  switch (name) {
    case 'pause':
      return state === 'running';
    case 'extend':
      return remainingMs !== null && (open || phase === 'merging');
    case 'close-round':
      return open;
    case 'abort-round':
      return open || phase === 'merging';
    case 'stop':
      return true;
  }
}

const MINUTE_MS = 60_000;
const MOST_MINUTES = 1_440;

/** Milliseconds in the text of the field, or what is wrong with it. */
export function minutesIn(text: string): number | string {
  const minutes = text.trim() === '' ? Number.NaN : Number(text.trim().replace(',', '.'));
  if (!Number.isFinite(minutes)) return 'A number of minutes is needed here, such as 5.';
  const ms = Math.round(minutes * MINUTE_MS);
  if (ms < 1_000) return 'At least one second, which is 0.02 minutes.';
  if (minutes > MOST_MINUTES) return `At most ${MOST_MINUTES.toLocaleString('en-US')} minutes, which is a day.`;
  return ms;
}
