// `weft demo`: the whole thing on this machine, from experiments/demo.yaml.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Experiment, parseExperiment } from '@weft/e2e/fleet';
import { type OptimiserName, optimiserSchema, type StrategyName, strategySchema } from '@weft/protocol';
import { Option } from 'commander';
import { action } from '../command.ts';
import { reportText } from '../experiment/report.ts';
import { resolveExperiment, runExperiment } from '../experiment/run.ts';
import type { Register } from '../program.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** A folder name nobody has used: `demo-2026-11-24T10-15-30`. */
export const newRunFolder = (name: string): string =>
  join(root, 'runs', `${name}-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}`);

/** Sparse rounds of a demo of slora, and a density at which the small model's shortest rows have six elements. */
const SPARSE = { sparseRounds: 2, sparseDensity: 0.1 };

/** The experiment under another strategy; fedit and slora take one rank, which is then the smallest. */
function mergedBy(experiment: Experiment, strategy: StrategyName | undefined): Experiment {
  if (strategy === undefined) return experiment;
  const { run } = experiment;
  const ranks = strategy === 'fedit' || strategy === 'slora' ? run.ranks.slice(0, 1) : run.ranks;
  return { ...experiment, run: { ...run, strategy, ranks, ...(strategy === 'slora' ? SPARSE : {}) } };
}

/** SGD's steps are as large as gradients are, clipped to norm 1, and need more than AdamW's 0.005. */
const SGD_LEARNING_RATE = 0.3;

/** The experiment with another local optimiser. */
function trainedBy(experiment: Experiment, optimiser: OptimiserName | undefined): Experiment {
  if (optimiser !== 'sgd') return experiment;
  return { ...experiment, run: { ...experiment.run, optimiser, learningRate: SGD_LEARNING_RATE } };
}

export const registerDemo: Register = (program) => {
  const command = program
    .command('demo')
    .description(
      'A server, three headless browser tabs of three ranks and a few rounds on this machine; shows the losses.',
    )
    .addOption(
      new Option('--strategy <name>', 'how to merge, instead of flexlora-carry').choices(strategySchema.options),
    )
    .addOption(
      new Option('--optimiser <name>', 'what tabs train by, instead of adamw').choices(optimiserSchema.options),
    )
    .option('--out <dir>', 'folder for model, data, adapter and metrics (default: a new one under runs/)');
  action<{ strategy?: StrategyName; optimiser?: OptimiserName; out?: string }>(command, async (options, _args, io) => {
    const file = join(root, 'experiments', 'demo.yaml');
    const asWritten = resolveExperiment(parseExperiment(await readFile(file, 'utf8'), file), file);
    const experiment = trainedBy(mergedBy(asWritten, options.strategy), options.optimiser);
    const report = await runExperiment(experiment, options.out ?? newRunFolder('demo'), io);
    io.result(report, () => reportText(report));
  });
};
