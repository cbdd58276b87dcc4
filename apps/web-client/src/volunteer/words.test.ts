import { everythingThatLeaves, type RankVerdict } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import type { TabState } from '../worker/api.ts';
import {
  browserName,
  fileSentence,
  LEAVING_WORDS,
  leavingGroups,
  limitTexts,
  NO_LIMITS,
  privacySentence,
  problemOf,
  progressOf,
  rankReason,
  readLimits,
  shortLicence,
  splitStatus,
  statusText,
  waitEnd,
} from './words.ts';

describe('what leaves the device', () => {
  it('has words for every field of the protocol, and no others', () => {
    const named = Object.entries(LEAVING_WORDS).flatMap(([event, words]) =>
      Object.keys(words).map((field) => `${event} ${field}`),
    );
    const sent = everythingThatLeaves().map(({ event, field }) => `${event} ${field}`);
    expect(named.sort()).toEqual(sent.sort());
  });

  it('folds fields of the same words, keeps their order, and shows a field nobody named', () => {
    const groups = leavingGroups([
      { event: 'lease:heartbeat', field: 'hidden' },
      { event: 'lease:heartbeat', field: 'shoeSize' },
      { event: 'lease:heartbeat', field: 'paused' },
    ]);
    expect(groups).toEqual([
      {
        title: 'Every 10 seconds while it has a place',
        items: [
          { words: 'whether the tab is hidden or paused', fields: ['hidden', 'paused'] },
          { words: 'shoeSize', fields: ['shoeSize'] },
        ],
      },
    ]);
  });

  it('says how large the update is', () => {
    expect(privacySentence(912_000)).toContain('A 912 kB update computed from it is sent');
  });
});

describe('my limits', () => {
  it('are MB of 10⁶ bytes, and empty for none', () => {
    expect(readLimits({ memory: '240', rank: '', upload: '1.5' })).toEqual({
      limits: { maxMemoryBytes: 240_000_000, maxRank: null, maxUploadBytes: 1_500_000 },
    });
    expect(readLimits({ memory: ' ', rank: '', upload: '' })).toEqual({ limits: NO_LIMITS });
  });

  it('come back as they were typed', () => {
    const texts = { memory: '0.75', rank: '8', upload: '' };
    const read = readLimits(texts);
    expect('limits' in read && limitTexts(read.limits)).toEqual(texts);
  });

  it('are refused by name', () => {
    const read = readLimits({ memory: 'lots', rank: '2.5', upload: '-1' });
    expect('errors' in read && Object.keys(read.errors).sort()).toEqual(['memory', 'rank', 'upload']);
  });
});

describe('the rank', () => {
  const verdict = (rank: number, fits: boolean): RankVerdict => ({
    rank,
    fits,
    memoryBytes: 1,
    uploadBytes: 1,
    reason: `reason of ${rank}`,
  });

  it('comes with the reason why the next one does not fit', () => {
    expect(rankReason(8, [verdict(4, true), verdict(8, true), verdict(16, false), verdict(32, false)])).toBe(
      'reason of 16',
    );
    expect(rankReason(8, [verdict(4, true), verdict(8, true)])).toBe('The largest rank of this run.');
    expect(rankReason(null, [])).toBe('');
  });
});

describe('a problem', () => {
  const about = { clientId: 'abc', rounds: 2, browser: 'Chrome' };

  it('that lasts is an error with what was kept and a remedy', () => {
    const { problem, remedy } = problemOf({ code: 'protocol-version', message: 'Old page.', retrying: false }, about);
    expect([problem.tone, problem.kept, remedy]).toEqual([
      'error',
      'What was downloaded stays on this device.',
      'reload',
    ]);
    expect(problem.technical).toContain('client: abc');
  });

  it('that passes is a warning without a button', () => {
    const { problem, remedy } = problemOf(
      { code: 'disconnected', message: 'The line is down.', retrying: true },
      about,
    );
    expect([problem.tone, remedy]).toEqual(['warning', null]);
  });

  it('of an unknown code can be tried again, and says that delivered rounds are safe', () => {
    const { problem, remedy } = problemOf({ code: 'strange', message: 'Strange.', retrying: false }, about);
    expect([problem.kept, remedy]).toEqual(['2 rounds you delivered are safe with the server.', 'retry']);
  });
});

describe('status and progress', () => {
  it('separates what is read aloud from what changes with every step', () => {
    expect(splitStatus('Training on your GPU · step 1 of 40 · 1,830 tokens/s')).toEqual({
      steady: 'Training on your GPU',
      changing: ' · step 1 of 40 · 1,830 tokens/s',
    });
    expect(splitStatus('Paused')).toEqual({ steady: 'Paused', changing: '' });
  });

  it('does not repeat an error, and says when a run needs nobody', () => {
    const base = { status: 'Ready', error: null, connected: true, run: null, outcome: null };
    const error = { code: 'disconnected', message: 'Down.', retrying: true };
    expect(statusText(base, false)).toBe('Ready');
    expect(statusText({ ...base, status: 'Down.', error, connected: false }, true)).toBe('Reconnecting to the server');
    expect(statusText({ ...base, status: 'Down.', error: { ...error, retrying: false } }, true)).toBe('Not running');
    const run = { state: 'completed', outcome: 'Committed 4 rounds.' } as TabState['run'];
    const thanks = 'Committed 4 rounds. It needs no more help. Thank you.';
    expect(statusText({ ...base, run }, false)).toBe(thanks);
    expect(statusText({ ...base, run, status: 'Older.', outcome: 'Older.' }, false)).toBe(thanks);
    expect(statusText({ ...base, run, status: 'Sending' }, true)).toBe('Sending');
  });

  it('is of the upload, the download or the steps', () => {
    const base = { stage: 'training' as const, download: null, upload: null, step: 10, steps: 40, compiling: null };
    expect(progressOf(base)).toEqual({ of: 'Training', share: 0.25 });
    expect(progressOf({ ...base, steps: 0 })).toEqual({ of: 'Training', share: 0 });
    const first = { ...base, step: 0, compiling: { done: 12, total: 48 } };
    expect(progressOf(first)).toEqual({ of: 'Compiling kernels', share: 0.25 });
    expect(progressOf({ ...first, stage: 'uploading' }).of).toBe('Training');
  });

  it('tells when a wait ends at the latest', () => {
    expect(waitEnd({ stage: 'waiting', phaseEndsAt: 80_500 }, 0)).toBe(' · at most 1 min 21 s more');
    expect(waitEnd({ stage: 'waiting', phaseEndsAt: 2_500 }, 0)).toBe(' · at most 3 s more');
    expect(waitEnd({ stage: 'waiting', phaseEndsAt: null }, 0)).toBe('');
    expect(waitEnd({ stage: 'training', phaseEndsAt: 80_000 }, 0)).toBe('');
  });

  it('tells what a file holds', () => {
    expect(fileSentence({ ok: true, rows: 120, cut: 3, unlabelled: 1 })).toBe(
      '120 rows. 3 are longer than the run’s sequence and will be cut. 1 has nothing left to learn and will be left out.',
    );
    expect(fileSentence({ ok: true, rows: 1, cut: null, unlabelled: null })).toBe('1 row.');
  });

  it('names a licence in a word or two', () => {
    expect(['MIT (weights: MIT; both)', 'Apache 2.0', 'CC BY-SA 4.0, see file'].map(shortLicence)).toEqual([
      'MIT',
      'Apache 2.0',
      'CC BY-SA 4.0',
    ]);
  });

  it('knows browsers', () => {
    expect(browserName('Mozilla/5.0 … Chrome/141.0 Safari/537.36')).toBe('Chrome');
    expect(browserName('Mozilla/5.0 … Version/26.0 Safari/605.1')).toBe('Safari');
  });
});
