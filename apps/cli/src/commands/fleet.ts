// `weft fleet`: an experiment file run with a fleet of headless browser tabs on this machine.
import { readFile } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { parseExperiment } from '@weft/e2e/fleet';
import { action, CommandError, numberOption } from '../command.ts';
import { reportText } from '../experiment/report.ts';
import { resolveExperiment, runExperiment } from '../experiment/run.ts';
import type { Register } from '../program.ts';
import { newRunFolder } from './demo.ts';

export const registerFleet: Register = (program) => {
  const command = program
    .command('fleet')
    .description('Run an experiment file: a server and its tabs in a headless browser on this machine.')
    .argument('<experiment>', 'YAML file; experiments/demo.yaml is an example')
    .option(
      '--tabs <n>',
      'open only the first N tabs of the file',
      numberOption('--tabs', { minimum: 1, integer: true }),
    )
    .option('--out <dir>', 'folder for model, data, adapter and metrics (default: a new one under runs/)');
  action<{ tabs?: number; out?: string }>(command, async (options, [file = ''], io) => {
    const path = resolve(file);
    const text = await readFile(path, 'utf8').catch((cause: unknown) => {
      throw new CommandError('experiment', `${path} cannot be read.`, { cause });
    });
    const experiment = resolveExperiment(parseExperiment(text, path), path);
    const tabs = experiment.tabs.slice(0, options.tabs ?? experiment.tabs.length);
    const name = basename(path).replace(/\.ya?ml$/, '');
    const report = await runExperiment(
      { ...experiment, tabs },
      options.out ? resolve(options.out) : newRunFolder(name),
      io,
    );
    io.result(report, () => reportText(report));
  });
};
