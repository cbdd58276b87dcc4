// What a simulation leaves: a document with every singular value, and a page with plots of the energy by rank beside what the
// law of singular values predicts.
import { table } from '../command.ts';
import { energyBeyond, type Law, lastTrained, lawfulSigmas, lawOf, type SimulatedRun, sigmasOf } from './lawful.ts';
import { plotsOf } from './plots.ts';

export interface SimulationReport {
  readonly gpu: { readonly name: string; readonly software: boolean };
  readonly model: string;
  /** What all runs share, in a reader's words. */
  readonly settings: Readonly<Record<string, string | number>>;
  /** Rank of every client. */
  readonly ranks: readonly number[];
  readonly runs: readonly SimulatedRun[];
}

const distinct = (ranks: readonly number[]): number[] => [...new Set(ranks)].sort((a, b) => a - b);

const percent = (share: number): string =>
  share === 0 ? '0 %' : share < 1e-4 ? `${(100 * share).toExponential(1)} %` : `${(100 * share).toFixed(2)} %`;

/** Rows: the heading, and a strategy each. */
function summary({ runs, ranks }: SimulationReport, law: Law | null): string[][] {
  const bounds = distinct(ranks).slice(0, -1);
  return [
    ['strategy', 'held-out loss', ...bounds.flatMap((rank) => [`energy beyond rank ${rank}`, 'by the law'])],
    ...runs.map((run) => {
      const at = lastTrained(run);
      const last = run.rounds[at];
      const lawful = lawfulSigmas(law, run)?.[at];
      return [
        run.strategy,
        // After training, before anything is lost again.
        run.heldOut.findLast(({ round }) => round <= (last?.round ?? 0))?.loss.toFixed(3) ?? '–',
        ...bounds.flatMap((rank) => [
          last ? percent(energyBeyond(sigmasOf(last), rank)) : '–',
          lawful ? percent(energyBeyond(lawful, rank)) : '–',
        ]),
      ];
    }),
  ];
}

export const simulationText = (report: SimulationReport): string => table(summary(report, lawOf(report.runs)));

const markdownTable = ([heads = [], ...body]: readonly (readonly string[])[]): string => {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(heads), `|${heads.map(() => '---|').join('')}`, ...body.map(line)].join('\n');
};

function lossTable({ runs }: SimulationReport): string {
  const measured = runs[0]?.heldOut.map(({ round }) => round) ?? [];
  return markdownTable([
    ['after round', ...measured.map(String)],
    ...runs.map(({ strategy, heldOut }) => [
      strategy,
      ...measured.map((round) => heldOut.find((each) => each.round === round)?.loss.toFixed(3) ?? '–'),
    ]),
  ]);
}

/** Files of the report by name: README.md and its plots. `command` is what made them. */
export function simulationPage(report: SimulationReport, command: string): Map<string, string> {
  const { ranks, runs, settings, gpu, model } = report;
  const law = lawOf(runs);
  const plots = plotsOf(runs, law, distinct(ranks));
  const cohort = distinct(ranks).map((rank) => `${ranks.filter((each) => each === rank).length} of rank ${rank}`);
  const [first] = runs;
  const trained = first ? lastTrained(first) + 1 : 0;
  const idle = (first?.rounds.length ?? 0) - trained;
  const progress = law ? law.matrices.reduce((sum, each) => sum + each.progress / law.matrices.length, 0) : 0;
  const text = `# Energy by rank under mixed ranks

Made by \`${command}\`: ${trained} rounds of ${ranks.length} clients (${cohort.join(', ')})${idle > 0 ? `, then ${idle} rounds in which nobody trains` : ''}, once for
each strategy, from the same model, rows and seeds. The trainer is the tab's and the merging the server's; adapter ${gpu.name}${gpu.software ? ' (software)' : ''}, model
${model}, ${Object.entries(settings)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')}.

${markdownTable(summary(report, law))}

Energy beyond rank r is the share of ‖M‖² that a client of rank r does not see, in the mean over the ${first?.rounds[0]?.matrices.length ?? 0} adapted matrices, after round ${trained}.
Held-out loss is the mean over tasks, nats per token, of what clients of the largest rank are handed, or of the whole update where
clients have it whole:

${lossTable(report)}

## What the law says

A client whose rank reaches direction j takes its singular value σ_j a share η of the way to σ*_j in a round; p_j is the weight share of these
clients. \`flexlora\` keeps the products alone, σ ← p·(σ + η·(σ* − σ)), and comes to rest at σ*·pη/(1 − p(1 − η)). Where changes are merged,
σ ← σ + p·η·(σ* − σ), whose rest is σ*. When nobody trains, η = 0: σ ← p·σ, or σ stays.
${
  law
    ? `
η (${progress.toFixed(3)} in the mean of the matrices) is fitted to the directions that every client reaches in the run of \`${law.fittedTo}\`, and σ* follows from
where each of its directions ends. Nothing is fitted to \`flexlora\`: its dashed lines are predictions. That of the fitted run ends where it ends.
`
    : ''
}
Training is not linear in σ, directions turn from round to round, and the noise of many clients fills directions that the law leaves
empty: what training adds beside the law is seen where solid and dashed lines part.

${plots.map(({ file, title }) => `## ${title}\n\n![${title}](${file})\n`).join('\n')}`;
  return new Map([['README.md', text], ...plots.map(({ file, svg }) => [file, svg] as const)]);
}
