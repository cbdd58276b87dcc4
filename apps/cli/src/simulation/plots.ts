// Plots of a simulation: energy by direction and by round, measured (solid) and by the law (dashed), on logarithmic scales.
import { chartFile, type Line } from '../charts/line-chart.ts';
import {
  energyAt,
  energyBeyond,
  energyOf,
  idleSigmas,
  type Law,
  lastTrained,
  lawfulSigmas,
  type Sigmas,
  type SimulatedRun,
  sigmasOf,
} from './lawful.ts';

export interface Plot {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

type Point = readonly [x: number, y: number];

/** What a plot shows of a run: points of positive values, measured and by the law. */
interface Curves {
  readonly measured: readonly Point[];
  readonly lawful: readonly Point[] | null;
}

/** Shares below this are rounding, or nothing. */
const LEAST = 1e-9;
const SUPERSCRIPTS = '⁰¹²³⁴⁵⁶⁷⁸⁹';

/** Powers of ten from 10^`least` to 1, least > −10. */
const ticks = (least: number) =>
  Array.from({ length: 1 - least }, (_, i) => ({
    at: least + i,
    text: least + i === 0 ? '1' : `10⁻${SUPERSCRIPTS[-(least + i)]}`,
  }));

const SERIES = [0, 1, 2, 3] as const;

function plot(
  { file, title, description, xLabel, yLabel }: Record<'file' | 'title' | 'description' | 'xLabel' | 'yLabel', string>,
  runs: readonly SimulatedRun[],
  curvesOf: (run: SimulatedRun) => Curves,
): Plot {
  const logarithms = (points: readonly Point[]) =>
    points.flatMap(([x, y]) => (y > LEAST ? [[x, Math.log10(y)] as const] : []));
  const lines = runs.flatMap((run, i): Line[] => {
    const { measured, lawful } = curvesOf(run);
    const series = SERIES[i % SERIES.length] ?? 0;
    const solid = { name: run.strategy, points: logarithms(measured), series };
    if (!lawful) return [solid];
    return [solid, { name: `${run.strategy}, by the law`, points: logarithms(lawful), series, dashed: true }];
  });
  const lowest = Math.min(-1, ...lines.flatMap(({ points }) => points.map(([, y]) => y)));
  return {
    file,
    title,
    svg: chartFile({ title, description, xLabel, yLabel, yTicks: ticks(Math.floor(lowest)), lines }),
  };
}

function byDirection(runs: readonly SimulatedRun[], law: Law | null): Plot {
  const spectrum = (sigmas: Sigmas = []): Point[] => {
    const directions = Math.max(0, ...sigmas.map((sigma) => sigma.length));
    return Array.from({ length: directions }, (_, j) => [j + 1, energyAt(sigmas, j)]);
  };
  return plot(
    {
      file: 'by-direction.svg',
      title: 'Energy by direction after training',
      description: 'Share of the squared norm of every direction, mean of all matrices.',
      xLabel: 'direction',
      yLabel: 'share of ‖M‖²',
    },
    runs,
    (run) => {
      const at = lastTrained(run);
      const lawful = lawfulSigmas(law, run);
      return {
        measured: run.rounds[at] ? spectrum(sigmasOf(run.rounds[at])) : [],
        lawful: lawful && spectrum(lawful[at]),
      };
    },
  );
}

function byRound(runs: readonly SimulatedRun[], law: Law | null, rank: number): Plot {
  return plot(
    {
      file: `beyond-rank-${rank}.svg`,
      title: `Energy beyond rank ${rank}, by round`,
      description: `Share of the squared norm beyond the first ${rank} directions, mean of all matrices.`,
      xLabel: 'round',
      yLabel: 'share of ‖M‖²',
    },
    runs,
    (run) => {
      const trained = run.rounds.slice(0, lastTrained(run) + 1);
      const lawful = lawfulSigmas(law, run);
      return {
        measured: trained.map((round) => [round.round, energyBeyond(sigmasOf(round), rank)]),
        lawful: lawful && trained.map((round, t) => [round.round, energyBeyond(lawful[t] ?? [], rank)]),
      };
    },
  );
}

function withoutTraining(runs: readonly SimulatedRun[], rank: number): Plot {
  const normBeyond = (sigmas: Sigmas): number =>
    Math.sqrt(sigmas.reduce((sum, sigma) => sum + energyOf(sigma, rank), 0));
  return plot(
    {
      file: 'idle.svg',
      title: `What is left beyond rank ${rank} when nobody trains`,
      description: `Norm of the directions beyond the first ${rank}, relative to the last trained round.`,
      xLabel: 'rounds without training',
      yLabel: 'norm left',
    },
    runs,
    (run) => {
      const from = lastTrained(run);
      const rounds = run.rounds.slice(from);
      const before = rounds[0] ? normBeyond(sigmasOf(rounds[0])) : 0;
      const left = (sigmas: Sigmas, t: number): Point => [t, before > 0 ? normBeyond(sigmas) / before : 0];
      return {
        measured: rounds.map((round, t) => left(sigmasOf(round), t)),
        lawful: idleSigmas(run, from)?.map(left) ?? null,
      };
    },
  );
}

/** `ranks`: those of the clients, ascending, each once. */
export function plotsOf(runs: readonly SimulatedRun[], law: Law | null, ranks: readonly number[]): Plot[] {
  const idle = runs.some(({ rounds }) => rounds.at(-1)?.trained === false);
  return [
    byDirection(runs, law),
    ...ranks.slice(0, -1).map((rank) => byRound(runs, law, rank)),
    ...(idle ? [withoutTraining(runs, ranks[0] ?? 1)] : []),
  ];
}
