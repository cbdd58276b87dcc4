// `weft simulate`: an experiment's rounds in one process on one GPU, strategy by strategy, without server or browser.
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseDataLines } from '@weft/formats';
import type { RunSettings } from '@weft/protocol';
import { adaptedMatrices, createLocalTrainer, type LocalTrainer, loadModel, plainSpec } from '@weft/trainer';
import { action, CommandError, formatMs, type Io } from '../command.ts';
import { openModelFiles, writeOutput } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import type { Register } from '../program.ts';
import { parseSimulation, type Simulation } from '../simulation/experiment.ts';
import { Federation } from '../simulation/federation.ts';
import type { SimulatedRun } from '../simulation/lawful.ts';
import { type SimulationReport, simulationPage, simulationText } from '../simulation/report.ts';

interface SimulateOptions {
  readonly out?: string;
}

const HELP = `
The file names a model, tasks, a run's settings, clients by rank and the strategies to compare; experiments/energy-per-rank.yaml is an
example. --out gets report.json with every singular value, and README.md with plots beside what the law of singular values predicts.`;

export const registerSimulate: Register = (program) => {
  const command = program
    .command('simulate')
    .description('Compare strategies in rounds of many clients in one process, without server or browser.')
    .argument('<simulation>', 'YAML file; experiments/energy-per-rank.yaml is an example')
    .option('--out <dir>', 'folder for the report and its plots')
    .addHelpText('after', HELP);
  action<SimulateOptions>(command, async (options, [file = ''], io) => {
    const path = resolve(file);
    const text = await readFile(path, 'utf8').catch((cause: unknown) => {
      throw new CommandError('experiment', `${path} cannot be read.`, { cause });
    });
    const report = await simulate(parseSimulation(text, path), io);
    if (options.out !== undefined) {
      const files = new Map(simulationPage(report, `weft simulate ${file} --out ${options.out}`));
      files.set('report.json', `${JSON.stringify(report)}\n`);
      for (const [name, content] of files) await writeOutput(join(options.out, name), content);
    }
    io.result(report, () => simulationText(report));
  });
};

async function simulate(simulation: Simulation, io: Io): Promise<SimulationReport> {
  const { model, ranks, runs } = simulation;
  const { files, name } = await openModelFiles(model, io);
  const { config } = await loadModel(files);
  const rows = await dealRows(simulation);
  return withGpu(async (gpu) => {
    const trainer = createLocalTrainer(gpu, { deviceMemoryGiB: null });
    const done: SimulatedRun[] = [];
    for (const settings of runs) {
      const began = performance.now();
      const matrices = adaptedMatrices(config, plainSpec(1, 1, settings.targets));
      const federation = new Federation({
        settings,
        matrices,
        clients: ranks.map((rank, i) => ({ rank, rows: rows.train[i] ?? '' })),
        train: (job) => trainer.train(files, job, control(io)),
      });
      const heldOut: { round: number; loss: number }[] = [];
      const measure = async (round: number): Promise<void> => {
        const loss = await heldOutLoss(
          trainer,
          files,
          { settings, adapter: round === 0 ? null : federation.adapter() },
          rows.test,
          io,
        );
        heldOut.push({ round, loss });
      };
      await measure(0);
      const rounds: SimulatedRun['rounds'][number][] = [];
      const last = settings.rounds + simulation.idleRounds;
      for (let round = 1; round <= last; round += 1) {
        io.signal.throwIfAborted();
        const trains = round <= settings.rounds;
        const onClient = (count: number) =>
          io.status(`${settings.strategy}: round ${round} of ${last}, client ${count} of ${ranks.length}`);
        const result = await federation.round({ trains, onClient });
        rounds.push(result);
        if (round === last || (trains && round % simulation.evaluateEvery === 0)) await measure(round);
        const measured = heldOut.at(-1)?.round === round ? `, held-out loss ${heldOut.at(-1)?.loss.toFixed(3)}` : '';
        const loss = result.trainLoss === null ? 'nobody trained' : `training loss ${result.trainLoss.toFixed(3)}`;
        io.note(
          `${settings.strategy}: round ${round} of ${last}, ${loss}${measured} (${formatMs(performance.now() - began)})`,
        );
      }
      done.push({ strategy: settings.strategy, rounds, heldOut, milliseconds: Math.round(performance.now() - began) });
    }
    trainer.close();
    return { gpu: gpuName(gpu), model: name.split('/').at(-1) ?? name, settings: shared(runs), ranks, runs: done };
  });
}

/** What a reader wants to know of the settings that all runs share. */
function shared([settings]: readonly RunSettings[]): SimulationReport['settings'] {
  if (!settings) return {};
  const { localSteps, batchSize, sequenceLength, learningRate, schedule, alphaPerRank, seed, tasks } = settings;
  return {
    'local steps': localSteps,
    batch: batchSize,
    'sequence length': sequenceLength,
    'learning rate': learningRate,
    schedule,
    'α per rank': alphaPerRank,
    seed,
    tasks: tasks.join(' '),
  };
}

const control = (io: Io) => ({
  signal: io.signal,
  whenRunning: () => Promise.resolve(),
  finishEarly: () => false,
  onStep: () => undefined,
});

async function heldOutLoss(
  trainer: LocalTrainer,
  files: Parameters<LocalTrainer['evaluate']>[0],
  { settings, adapter }: { settings: RunSettings; adapter: ReturnType<Federation['adapter']> | null },
  rows: ReadonlyMap<string, string>,
  io: Io,
): Promise<number> {
  const { sequenceLength, baseDtype, targets } = settings;
  const grant = adapter?.grant ?? plainSpec(1, 1, targets);
  const job = { grant, sequenceLength, baseDtype };
  const results = await trainer.evaluate(files, job, adapter?.weights ?? null, rows, io.signal);
  return results.reduce((sum, { loss }) => sum + loss / results.length, 0);
}

/** The rows of every client as JSON lines, and of every task's test. No two clients share a row. */
async function dealRows(simulation: Simulation): Promise<{ train: string[]; test: ReadonlyMap<string, string> }> {
  const { tasksDir, ranks, data } = simulation;
  const tasks = simulation.runs[0]?.tasks ?? [];
  const read = async (task: string, split: string): Promise<string> => {
    const path = join(tasksDir, task, `${split}.jsonl`);
    const text = await readFile(path, 'utf8').catch((cause: unknown) => {
      throw new CommandError('no-such-file', `There is no file ${path}.`, { cause });
    });
    parseDataLines(text, path);
    return text;
  };
  const train: string[][] = ranks.map(() => []);
  for (const [t, task] of tasks.entries()) {
    const lines = (await read(task, 'train')).split('\n').filter((line) => line.trim() !== '');
    const takers = train.filter((_, i) => data === 'mixed' || i % tasks.length === t);
    if (lines.length < takers.length) {
      throw new CommandError(
        'experiment',
        `${task} has ${lines.length} rows for ${takers.length} clients; take fewer clients or more tasks.`,
      );
    }
    for (const [i, line] of lines.entries()) takers[i % takers.length]?.push(line);
  }
  const test = new Map<string, string>();
  for (const task of tasks) test.set(task, await read(task, 'test'));
  return { train: train.map((lines) => lines.join('\n')), test };
}
