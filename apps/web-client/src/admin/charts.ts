// The dashboard's charts as specs, from the round records. Pure; what a figure means is decided here, not in the views.
import type { RoundRecord, RunSnapshot } from '@weft/protocol';
import { type ChartSeries, type ChartSpec, stack } from '../shared/chart-spec.ts';
import { bytes, duration, loss, significant } from '../shared/format.ts';
import { rankColour } from '../shared/rank.tsx';

type Losses = Readonly<Record<string, number>>;

export const committedRounds = (rounds: readonly RoundRecord[]): RoundRecord[] =>
  rounds.filter((record) => record.outcome === 'committed');

/** Mean over tasks; null where nothing was measured. */
export function meanOf(losses: Losses | null): number | null {
  const values = Object.values(losses ?? {});
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Held-out loss by version, a line a task and a thick one for their mean; version 0 is the base model. */
export function lossChart(
  { baseLoss, rounds, run }: Pick<RunSnapshot, 'baseLoss' | 'rounds' | 'run'>,
  isDark: boolean,
): ChartSpec {
  const points: [x: number, losses: Losses | null, train: number | null][] = [];
  if (baseLoss) points.push([0, baseLoss, null]);
  for (const record of committedRounds(rounds)) points.push([record.version, record.heldOutLoss, record.trainLoss]);
  const { tasks } = run.settings;
  const taskLine = (task: string, i: number): ChartSeries => ({
    label: task,
    colour: `oklch(${isDark ? 72 : 58}% 0.09 ${Math.round((200 + (360 * i) / Math.max(1, tasks.length)) % 360)})`,
    values: points.map(([, losses]) => losses?.[task] ?? null),
    width: 1,
  });
  const measured = points.some(([, losses]) => losses !== null);
  const trained = points.some(([, , train]) => train !== null);
  return {
    title: 'Held-out loss',
    x: points.map(([x]) => x),
    xLabel: 'version',
    yLabel: 'nats per token',
    format: loss,
    series: [
      ...(measured && tasks.length > 1 ? tasks.map(taskLine) : []),
      ...(measured
        ? [
            {
              label: tasks.length > 1 ? 'mean of tasks' : (tasks[0] ?? 'held-out'),
              colour: '--accent',
              width: 2.5,
              values: points.map(([, losses]) => meanOf(losses)),
            },
          ]
        : []),
      ...(trained
        ? [
            {
              label: 'training, on the devices',
              colour: '--ink-quiet',
              dashed: true,
              width: 1.5,
              values: points.map(([, , train]) => train),
            },
          ]
        : []),
    ],
  };
}

/** Adapted matrices that any round has a spectrum of, in the order of the latest. */
export function modulesOf(rounds: readonly RoundRecord[]): string[] {
  return [...new Set([...rounds].reverse().flatMap((record) => record.spectra.map((spectrum) => spectrum.module)))];
}

/** `model.layers.3.self_attn.q_proj` → `layer 3 · q_proj` */
export function moduleLabel(module: string): string {
  const match = /layers\.(\d+)\.(?:.*\.)?([^.]+)$/.exec(module);
  return match ? `layer ${match[1]} · ${match[2]}` : module;
}

/** Rounds drawn in one spectrum; more could not be told apart. */
export const SPECTRA_SHOWN = 6;

/** The `i`-th of `count` rounds drawn together: the older the fainter, the latest broad. */
export function roundColour(i: number, count: number, isDark: boolean): Pick<ChartSeries, 'colour' | 'width'> {
  const age = count === 1 ? 1 : i / (count - 1);
  const lightness = isDark ? 45 + 32 * age : 78 - 33 * age;
  return {
    colour: `oklch(${lightness.toFixed(0)}% ${(0.03 + 0.06 * age).toFixed(3)} 190)`,
    width: i === count - 1 ? 2.5 : 1.5,
  };
}

/** Rounds to draw: the first, the latest, and others spread evenly between them. */
export function spread<T>(items: readonly T[], most: number): T[] {
  if (items.length <= most) return [...items];
  const last = items.length - 1;
  return Array.from({ length: most }, (_, i) => items[Math.round((i * last) / (most - 1))]).filter(
    (item) => item !== undefined,
  );
}

/** Singular values by index, one line a round, older ones fainter. Zeros are left out: the axis is logarithmic. */
export function spectrumChart(rounds: readonly RoundRecord[], module: string, isDark: boolean): ChartSpec {
  const shown = spread(
    committedRounds(rounds).flatMap((record) => {
      const spectrum = record.spectra.find((each) => each.module === module);
      return spectrum ? [{ round: record.round, sigma: spectrum.sigma }] : [];
    }),
    SPECTRA_SHOWN,
  );
  const largest = Math.max(0, ...shown.flatMap(({ sigma }) => sigma));
  const floor = largest * 1e-7;
  const length = Math.max(0, ...shown.map(({ sigma }) => sigma.findLastIndex((value) => value > floor) + 1));
  return {
    title: 'Spectrum',
    x: Array.from({ length }, (_, i) => i + 1),
    xLabel: 'index',
    yLabel: 'σ',
    logarithmic: true,
    format: significant,
    series: shown.map(({ round, sigma }, i) => ({
      label: `round ${round}`,
      ...roundColour(i, shown.length, isDark),
      values: Array.from({ length }, (_, j) => ((sigma[j] ?? 0) > floor ? (sigma[j] ?? null) : null)),
    })),
  };
}

/** Uploaded bytes by round, stacked by rank in the ranks' colours, with the time each merge took. */
export function costChart(rounds: readonly RoundRecord[], isDark: boolean): ChartSpec {
  const shown = committedRounds(rounds);
  const ranks = [...new Set(shown.flatMap((record) => record.contributions.map((each) => each.rank)))].sort(
    (a, b) => a - b,
  );
  const byRank = ranks.map((rank) =>
    shown.map((record) => {
      const sizes = record.contributions.filter((each) => each.rank === rank).map((each) => each.uploadBytes);
      return sizes.length === 0 ? null : sizes.reduce((sum, size) => sum + size, 0);
    }),
  );
  const tops = stack(byRank);
  const bars = ranks.map(
    (rank, i): ChartSeries => ({
      label: `rank ${rank}`,
      colour: rankColour(rank, isDark),
      kind: 'bars',
      values: tops[i] ?? [],
      shown: byRank[i] ?? [],
    }),
  );
  return {
    title: 'Bytes and times',
    x: shown.map((record) => record.round),
    xLabel: 'round',
    yLabel: 'uploaded',
    format: bytes,
    rightLabel: 'merge',
    rightFormat: duration,
    // The tallest bars first, so that the shorter ones stand in front of them.
    series: [
      ...bars.reverse(),
      {
        label: 'merge time',
        colour: '--ink',
        axis: 'right',
        width: 1.5,
        dashed: true,
        values: shown.map((record) => record.mergeMs),
      },
    ],
  };
}

export interface Comparison {
  readonly task: string;
  readonly left: number | null;
  readonly right: number | null;
  /** right − left: below 0 is better. */
  readonly change: number | null;
}

/** Held-out losses of two versions side by side, a row a task and one for the mean. Version 0 is the base model. */
export function compareVersions(
  snapshot: Pick<RunSnapshot, 'baseLoss' | 'rounds' | 'run'>,
  left: number,
  right: number,
): Comparison[] {
  const lossesOf = (version: number): Losses | null =>
    version === 0
      ? snapshot.baseLoss
      : (committedRounds(snapshot.rounds).find((record) => record.version === version)?.heldOutLoss ?? null);
  const [a, b] = [lossesOf(left), lossesOf(right)];
  const row = (task: string, before: number | null, after: number | null): Comparison => ({
    task,
    left: before,
    right: after,
    change: before === null || after === null ? null : after - before,
  });
  return [
    ...snapshot.run.settings.tasks.map((task) => row(task, a?.[task] ?? null, b?.[task] ?? null)),
    row('mean', meanOf(a), meanOf(b)),
  ];
}
