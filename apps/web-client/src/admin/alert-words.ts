// What alerts and findings are called on the page. Pure.
import type { AlertKind } from '@weft/protocol';
import { quantity } from '../shared/format.ts';

export const WHAT: Record<AlertKind, string> = {
  stalled: 'Nothing moves',
  'abandoned-rounds': 'Rounds come to nothing',
  'loss-rose': 'Held-out loss rose',
  'non-finite-uploads': 'Uploads are not finite',
  'merge-failed': 'A merge failed',
  'disk-full': 'The disk is nearly full',
  'index-unreachable': 'The history index is away',
};

const FOUND: Readonly<Record<string, readonly [one: string, many: string]>> = {
  temporary: ['half-written file', 'half-written files'],
  'partial-without-lease': ['unfinished upload without a lease', 'unfinished uploads without a lease'],
  'upload-missing': ['lost upload', 'lost uploads'],
  'upload-damaged': ['damaged upload', 'damaged uploads'],
  'journal-cut': ['journal cut off at its end', 'journals cut off at their end'],
};

/** `1 half-written file, 2 lost uploads`; a kind of a newer server by its own name. */
export const findingsInWords = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .map(([kind, n]) => quantity(n, ...(FOUND[kind] ?? ([kind, kind] as const))))
    .join(', ');
