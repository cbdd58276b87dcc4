import type { RoundRecord, RunSnapshot } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { compareVersions, costChart, lossChart, moduleLabel, modulesOf, spectrumChart, spread } from './charts.ts';

const contribution = (rank: number, uploadBytes: number): RoundRecord['contributions'][number] => ({
  clientId: `c${rank}`,
  name: null,
  rank,
  prunedFrom: null,
  task: 'rooms',
  targetTokens: 100,
  examples: 10,
  uploadBytes,
  sha256: 'a'.repeat(64),
  startVersion: 0,
  late: null,
  weight: 0.5,
  firstLoss: 5,
  lastLoss: 4,
  quarantined: null,
  changeNorm: rank / 4,
  cosineToMean: rank / 10,
  clip: 1,
  outlier: null,
});

const record = (round: number, changes: Partial<RoundRecord> = {}): RoundRecord => ({
  round,
  version: round,
  outcome: 'committed',
  reason: null,
  endedAt: '2026-01-01T00:00:00.000Z',
  mergeMs: 1_200,
  contributions: [contribution(4, 40_000), contribution(8, 80_000)],
  trainLoss: 4.5 - round / 10,
  heldOutLoss: { rooms: 5 - round, travel: 6 - round },
  spectra: [
    {
      module: 'model.layers.0.self_attn.q_proj',
      sigma: [2, 1, 0],
      effectiveRank: 1.9,
      p: [1, 1, 0.5],
      discardedTail: 0,
      truncationError: { 1: 0.4, 2: 0 },
    },
  ],
  tree: null,
  ...changes,
});

const settings = { tasks: ['rooms', 'travel'] } as RunSnapshot['run']['settings'];
const run = { settings } as RunSnapshot['run'];
const abandoned = record(2, {
  outcome: 'abandoned',
  version: 1,
  reason: 'too few uploads',
  heldOutLoss: null,
  trainLoss: null,
  spectra: [],
  contributions: [],
});
const rounds = [record(1), abandoned, record(3, { version: 2 })];

describe('the loss chart', () => {
  it('starts at the base model, leaves abandoned rounds out, and has a mean over the tasks', () => {
    const chart = lossChart({ baseLoss: { rooms: 6, travel: 7 }, rounds, run }, false);
    expect(chart.x).toEqual([0, 1, 2]);
    expect(chart.series.map((line) => [line.label, line.values])).toEqual([
      ['rooms', [6, 4, 2]],
      ['travel', [7, 5, 3]],
      ['mean of tasks', [6.5, 4.5, 2.5]],
      ['training, on the devices', [null, 4.4, 4.2]],
    ]);
  });

  it('is empty before anything is known', () => {
    expect(lossChart({ baseLoss: null, rounds: [], run }, false)).toMatchObject({ x: [], series: [] });
  });
});

describe('the spectrum', () => {
  it('has a line a round and no zeros, which a logarithmic axis cannot show', () => {
    const chart = spectrumChart(rounds, 'model.layers.0.self_attn.q_proj', false);
    expect(chart.x).toEqual([1, 2]);
    expect(chart.series.map((line) => [line.label, line.values])).toEqual([
      ['round 1', [2, 1]],
      ['round 3', [2, 1]],
    ]);
  });

  it('names the matrices it can show', () => {
    expect(modulesOf(rounds)).toEqual(['model.layers.0.self_attn.q_proj']);
    expect(moduleLabel('model.layers.0.self_attn.q_proj')).toBe('layer 0 · q_proj');
    expect(moduleLabel('lm_head')).toBe('lm_head');
  });

  it('draws the first, the last, and some between', () => {
    expect(spread([1, 2, 3], 6)).toEqual([1, 2, 3]);
    const some = spread(
      Array.from({ length: 100 }, (_, i) => i),
      6,
    );
    expect(some).toHaveLength(6);
    expect([some[0], some[5]]).toEqual([0, 99]);
  });
});

describe('the bytes chart', () => {
  it('stacks ranks, tallest first, and lists each rank’s own bytes', () => {
    const chart = costChart(rounds, false);
    expect(chart.x).toEqual([1, 3]);
    expect(chart.series.map((bar) => [bar.label, bar.values, bar.shown])).toEqual([
      ['rank 8', [120_000, 120_000], [80_000, 80_000]],
      ['rank 4', [40_000, 40_000], [40_000, 40_000]],
      ['merge time', [1_200, 1_200], undefined],
    ]);
  });
});

describe('comparing versions', () => {
  it('gives each task and the mean, with the change', () => {
    const rows = compareVersions({ baseLoss: { rooms: 6, travel: 7 }, rounds, run }, 0, 2);
    expect(rows).toEqual([
      { task: 'rooms', left: 6, right: 2, change: -4 },
      { task: 'travel', left: 7, right: 3, change: -4 },
      { task: 'mean', left: 6.5, right: 2.5, change: -4 },
    ]);
  });

  it('leaves open what was not measured', () => {
    const rows = compareVersions({ baseLoss: null, rounds, run }, 0, 1);
    expect(rows[0]).toEqual({ task: 'rooms', left: null, right: 4, change: null });
  });
});
