import type { RoundRecord } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { agreementChart, energyChart, truncationChart } from './health-charts.ts';
import { remarksOn } from './rounds.tsx';

const MODULE = 'model.layers.0.self_attn.q_proj';
type Contribution = RoundRecord['contributions'][number];

const contribution = (changes: Partial<Contribution>): Contribution => ({
  clientId: 'c',
  name: null,
  rank: 4,
  prunedFrom: null,
  task: 'rooms',
  targetTokens: 100,
  examples: 10,
  uploadBytes: 40_000,
  sha256: 'a'.repeat(64),
  startVersion: 0,
  late: null,
  weight: 0.5,
  firstLoss: 5,
  lastLoss: 4,
  quarantined: null,
  changeNorm: 1,
  cosineToMean: 0.5,
  clip: 1,
  outlier: null,
  ...changes,
});

const record = (round: number, sigma: number[], cosines: (number | null)[]): RoundRecord => ({
  round,
  version: round,
  outcome: 'committed',
  reason: null,
  endedAt: '2026-01-01T00:00:00.000Z',
  mergeMs: 1_200,
  contributions: [
    ...cosines.map((cosineToMean) => contribution({ cosineToMean })),
    contribution({ cosineToMean: -0.9, quarantined: 'similarity: against the others' }),
  ],
  trainLoss: 4,
  heldOutLoss: null,
  tree: null,
  spectra: [
    {
      module: MODULE,
      sigma,
      effectiveRank: sigma.length,
      p: [1, 1, 0.25],
      discardedTail: 0.6,
      truncationError: { 4: 0.7, 16: 0.6 },
    },
    { module: 'other', sigma: [1], effectiveRank: 1, p: [1], discardedTail: 0, truncationError: { 4: 0, 16: 0 } },
  ],
});
const rounds = [record(1, [2], [0.1, 0.4, 0.9]), record(3, [2, 1], [null, null])];

describe('energy by rank', () => {
  it('counts what the stored rank lost, and says whose weight reaches each direction', () => {
    const chart = energyChart(rounds, MODULE, false);
    expect(chart.x).toEqual([1, 2, 3]);
    expect(chart.series.map(({ label }) => label)).toEqual([
      'round 1',
      'round 3',
      'weight whose rank reaches it, round 3',
    ]);
    // The tail of 0.6 is 36 % of the whole.
    expect(chart.series[0]?.values).toEqual([expect.closeTo(0.64, 12), null, null]);
    expect(chart.series[1]?.values).toEqual([expect.closeTo(0.512, 12), expect.closeTo(0.64, 12), null]);
    expect(chart.series[2]?.values).toEqual([1, 1, 0.25]);
    expect(chart.format(0.512)).toBe('51.2 %');
  });

  it('is empty before the first round', () => {
    expect(energyChart([], MODULE, false)).toMatchObject({ x: [], series: [] });
  });
});

describe('what a rank loses', () => {
  it('has a line a rank of the run and one for the stored state', () => {
    const chart = truncationChart(rounds, MODULE, false);
    expect(chart.x).toEqual([1, 3]);
    expect(chart.series.map(({ label, values }) => [label, values])).toEqual([
      ['rank 4', [0.7, 0.7]],
      ['rank 16', [0.6, 0.6]],
      ['lost to the stored rank', [0.6, 0.6]],
    ]);
  });
});

describe('the agreement of changes', () => {
  it('spans the merged ones, and leaves open where nobody moved', () => {
    const chart = agreementChart(rounds);
    expect(chart.series.map(({ label, values }) => [label, values])).toEqual([
      ['highest', [0.9, null]],
      ['median', [0.4, null]],
      ['lowest', [0.1, null]],
      ['effective rank, mean of matrices', [1, 1.5]],
    ]);
  });
});

describe('remarks on an upload', () => {
  it('say what was done to it and why it stands out', () => {
    expect(remarksOn(contribution({}))).toBe('');
    expect(remarksOn(contribution({ quarantined: 'norm: too large' }))).toBe('quarantined: norm: too large');
    expect(remarksOn(contribution({ clip: 0.4, outlier: 'norm: 5 times the median' }))).toBe(
      'change clipped to 40 % of its size; outlier: norm: 5 times the median',
    );
  });
});
