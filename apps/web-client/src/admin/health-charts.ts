// How healthy a merge is, as specs: the energy each direction holds, what clients of each rank do not see, how far the
// changes agree. Pure, from the round records, beside charts.ts.
import type { RoundRecord } from '@weft/protocol';
import type { ChartSpec } from '../shared/chart-spec.ts';
import { significant } from '../shared/format.ts';
import { rankColour } from '../shared/rank.tsx';
import { committedRounds, roundColour, SPECTRA_SHOWN, spread } from './charts.ts';

type Spectrum = RoundRecord['spectra'][number];

const spectraOf = (rounds: readonly RoundRecord[], module: string): { round: number; spectrum: Spectrum }[] =>
  committedRounds(rounds).flatMap(({ round, spectra }) => {
    const spectrum = spectra.find((each) => each.module === module);
    return spectrum ? [{ round, spectrum }] : [];
  });

const percent = (value: number): string => `${Number((100 * value).toPrecision(3))} %`;

/** Share of ‖M‖² in the first directions, M before truncation to the stored rank. */
function energies({ sigma, discardedTail }: Spectrum): number[] {
  const kept = sigma.reduceRight((sum, value) => sum + value * value, 0);
  const share = 1 - discardedTail * discardedTail;
  let sum = 0;
  return sigma.map((value) => {
    sum += value * value;
    return kept === 0 ? 0 : (share * sum) / kept;
  });
}

/** What the first directions hold, one line a round, older ones fainter; and whose weight reaches them in the latest. */
export function energyChart(rounds: readonly RoundRecord[], module: string, isDark: boolean): ChartSpec {
  const all = spectraOf(rounds, module);
  const shown = spread(all, SPECTRA_SHOWN);
  const latest = all.at(-1);
  const reached = latest?.spectrum.p ?? [];
  const length = Math.max(0, reached.length, ...shown.map(({ spectrum }) => spectrum.sigma.length));
  const padded = (values: readonly number[]) => Array.from({ length }, (_, i) => values[i] ?? null);
  return {
    title: 'Energy by rank',
    x: Array.from({ length }, (_, i) => i + 1),
    xLabel: 'directions',
    yLabel: 'share of ‖M‖²',
    format: percent,
    series: [
      ...shown.map(({ round, spectrum }, i) => ({
        label: `round ${round}`,
        ...roundColour(i, shown.length, isDark),
        values: padded(energies(spectrum)),
      })),
      ...(latest
        ? [
            {
              label: `weight whose rank reaches it, round ${latest.round}`,
              colour: '--ink-quiet',
              dashed: true,
              width: 1.5,
              values: padded(reached),
            },
          ]
        : []),
    ],
  };
}

/** ‖M − trunc_r(M)‖ / ‖M‖ by round, a line a rank of the run, and what the stored state itself lost. */
export function truncationChart(rounds: readonly RoundRecord[], module: string, isDark: boolean): ChartSpec {
  const shown = spectraOf(rounds, module);
  const ranks = [...new Set(shown.flatMap(({ spectrum }) => Object.keys(spectrum.truncationError).map(Number)))].sort(
    (a, b) => a - b,
  );
  return {
    title: 'What a rank loses',
    x: shown.map(({ round }) => round),
    xLabel: 'round',
    yLabel: 'share of ‖M‖',
    format: percent,
    series: [
      ...ranks.map((rank) => ({
        label: `rank ${rank}`,
        colour: rankColour(rank, isDark),
        width: 2,
        values: shown.map(({ spectrum }) => spectrum.truncationError[String(rank)] ?? null),
      })),
      {
        label: 'lost to the stored rank',
        colour: '--ink-quiet',
        dashed: true,
        width: 1.5,
        values: shown.map(({ spectrum }) => spectrum.discardedTail),
      },
    ],
  };
}

function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? null;
  return sorted.length % 2 === 1 || upper === null ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

/** Cosines of the merged changes with their mean, lowest to highest, and the effective rank in the mean of all matrices. */
export function agreementChart(rounds: readonly RoundRecord[]): ChartSpec {
  const shown = committedRounds(rounds).map(({ round, contributions, spectra }) => ({
    round,
    cosines: contributions.flatMap(({ cosineToMean, quarantined }) =>
      cosineToMean !== null && quarantined === null ? [cosineToMean] : [],
    ),
    effectiveRank:
      spectra.length === 0 ? null : spectra.reduce((sum, each) => sum + each.effectiveRank, 0) / spectra.length,
  }));
  const of = (pick: (cosines: readonly number[]) => number) =>
    shown.map(({ cosines }) => (cosines.length === 0 ? null : pick(cosines)));
  return {
    title: 'Agreement of changes',
    x: shown.map(({ round }) => round),
    xLabel: 'round',
    yLabel: 'cosine with the mean',
    format: significant,
    rightLabel: 'effective rank',
    rightFormat: significant,
    series: [
      { label: 'highest', colour: '--ink-quiet', width: 1, values: of((cosines) => Math.max(...cosines)) },
      { label: 'median', colour: '--accent', width: 2.5, values: shown.map(({ cosines }) => median(cosines)) },
      { label: 'lowest', colour: '--warning', width: 1, values: of((cosines) => Math.min(...cosines)) },
      {
        label: 'effective rank, mean of matrices',
        colour: '--ink',
        axis: 'right',
        dashed: true,
        width: 1.5,
        values: shown.map(({ effectiveRank }) => effectiveRank),
      },
    ],
  };
}
