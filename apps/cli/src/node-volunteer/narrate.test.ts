// Which lines a change of the session is worth.
import type { SessionState } from '@weft/volunteer';
import { describe, expect, it } from 'vitest';
import { narrate, narrateEvaluator } from './narrate.ts';

const nothing: SessionState = {
  stage: 'waiting',
  connected: true,
  paused: false,
  finishing: false,
  clientId: null,
  run: null,
  round: null,
  phaseEndsAt: null,
  manifest: null,
  device: null,
  proposal: null,
  ownLimits: { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null },
  data: { own: false, task: null, examples: null },
  lease: null,
  download: null,
  progress: null,
  compiling: null,
  losses: [],
  upload: null,
  receipts: [],
  totals: { rounds: 0, targetTokens: 0, uploadBytes: 0 },
  waitingFor: null,
  note: null,
  error: null,
  outcome: null,
};
const progress = { stage: 'training', step: 0, steps: 20, loss: null, targetTokens: 0, tokensPerSecond: null } as const;

describe('narrate', () => {
  it('says nothing of steps and bytes', () => {
    const training: SessionState = { ...nothing, stage: 'training', progress: { ...progress, step: 3 } };
    expect(narrate(training, { ...training, progress: { ...progress, step: 4 } })).toEqual([]);
    const upload = { what: 'the update', bytes: 1, total: 2 };
    expect(narrate(nothing, { ...nothing, upload })).toEqual([]);
  });

  it('gives the rank with its price, and why not more', () => {
    const verdict = { memoryBytes: 3_200_000, uploadBytes: 109_000 };
    const proposal = {
      rank: 4,
      verdicts: [
        { ...verdict, rank: 4, fits: true, reason: 'It fits.' },
        { ...verdict, rank: 8, fits: false, reason: 'Your limit is 4.' },
      ],
      ownLimits: nothing.ownLimits,
      stepSeconds: null,
    };
    expect(narrate(nothing, { ...nothing, proposal })).toEqual([
      'Rank 4 on this device, 3.2 MB of GPU memory, 109 kB a round.',
      'Not rank 8: Your limit is 4.',
    ]);
  });

  it('tells a broken line once, and its return', () => {
    const down = (message: string): SessionState => ({
      ...nothing,
      error: { code: 'disconnected', message, retrying: true },
    });
    expect(narrate(nothing, down('Down (a).'))).toEqual(['Down (a).']);
    expect(narrate(down('Down (a).'), down('Down (b).'))).toEqual([]);
    expect(narrate(down('Down (b).'), nothing)).toEqual(['Connected again.']);
  });

  it('tells what it waits for when that changes', () => {
    const waiting = { ...nothing, waitingFor: 'Waiting for the round to open (1 of 3 volunteers are here).' };
    expect(narrate(nothing, waiting)).toEqual([waiting.waitingFor]);
    expect(narrate(waiting, { ...waiting })).toEqual([]);
  });
});

describe('narrateEvaluator', () => {
  it('gives the losses of a version', () => {
    const results = [{ task: 'rooms', loss: 2.71649, targetTokens: 1, rows: 1 }];
    expect(narrateEvaluator({ kind: 'measured', version: 2, results })).toBe('Version 2: rooms 2.716');
  });
});
