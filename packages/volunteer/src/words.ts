// How a session speaks: sentences with numbers and units, from data. MB is 10⁶ bytes.
import type { RoundView, RunView } from '@weft/protocol';

export const plural = (count: number, noun: string): string =>
  `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;

/** 850 B, 12 kB, 4.9 MB. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), units.length);
  const value = bytes / 1000 ** power;
  return `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[power - 1]}`;
}

/** 0.8 s, 12 s, 1 min 20 s. */
export function formatMs(ms: number): string {
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

export const hasEnded = (run: RunView | null): boolean => run?.state === 'completed' || run?.state === 'stopped';

export const stoppedSentence = (rounds: number): string =>
  `Stopped. ${plural(rounds, 'round')} helped; the model stays on this device for the next visit.`;

/** What a volunteer without a lease waits for. The server's own reason comes first: it knows the queue. */
export function waitingSentence(run: RunView, round: RoundView, reason: string | null): string {
  if (run.state === 'created') return 'Waiting for the operator to start the run.';
  if (run.state === 'paused' && round.phase !== 'training') {
    return 'The operator has paused the run. Training goes on when it is resumed; you need not do anything.';
  }
  if (reason !== null) return reason;
  return leasedSentence(round);
}

/** What a volunteer that has its lease waits for. */
export function leasedSentence(round: RoundView): string {
  const here = round.training + round.uploaded;
  switch (round.phase) {
    case 'selecting':
      return round.reason ?? `Waiting for the round to open (${here} of ${plural(round.goal, 'volunteer')} are here).`;
    case 'training':
      return `Round ${round.round} is training (${round.uploaded} of ${plural(round.goal, 'upload')} are in).`;
    case 'merging':
      return `Round ${round.round} is being merged; the next one opens right after.`;
    default:
      return 'The next round opens in a moment.';
  }
}
