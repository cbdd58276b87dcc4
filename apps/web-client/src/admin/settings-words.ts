// A run's settings as sentences, for the list of facts. Pure.
import type { RunSettings } from '@weft/protocol';
import { duration, quantity } from '../shared/format.ts';

/** How its rounds follow each other, and who has a place in them. */
export function roundsInWords(settings: RunSettings): string {
  const { mode, rounds, goal, minimum, stratify } = settings;
  const size = `goal ${goal}, minimum ${minimum}`;
  const places = stratify ? '; places are shared over the ranks' : '';
  if (mode === 'synchronous') return `${rounds}, one after another: ${size}${places}`;
  const atOnce = settings.concurrency ?? Math.ceil(1.3 * goal);
  return `${rounds}, buffered: ${size}, ${quantity(atOnce, 'device')} at once${places}`;
}

/** Until when work is taken, and what it then counts. */
export function lateWorkInWords({ lateMs, stalenessPower, maxStaleness }: RunSettings): string {
  const taken = lateMs === 0 ? 'not taken' : `taken for ${duration(lateMs)}`;
  const weight = stalenessPower === 0 ? 'counted like fresh work' : `weighed n·(1 + τ)^−${stalenessPower}`;
  return `${taken}; ${weight}, up to ${quantity(maxStaleness, 'version')} old`;
}
