// `weft merge`: PEFT adapters of any ranks into one of a chosen rank, without a server. Headers first, so that what does not fit
// is refused before any work; then one matrix at a time, each read from all files when it is its turn.
import { statSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  commonMatrices,
  MergeError,
  normaliseWeights,
  type Shape,
  STRATEGY_NAMES,
  type Strategy,
  strategyByName,
} from '@weft/flexlora';
import { type LoraAdapter, type LoraFactors, modelCard } from '@weft/formats';
import { defaultProcesses } from '@weft/server/merge';
import { action, CommandError, type Io, numberOption, table, UsageError } from '../command.ts';
import { writeAdapterFolder } from '../folders.ts';
import type { Register } from '../program.ts';
import { parseWeightedAdapter, type WeightedAdapter, weightsOf } from '../weighted-adapter.ts';
import { type MergeInput, type OpenedAdapter, openInputs } from './merge/inputs.ts';
import type { MatrixJob, MergedMatrix, StoredPair } from './merge/matrix-job.ts';
import { mergeMatrices } from './merge/merge-matrices.ts';
import { type MergedModule, type MergeReport, reportPage } from './merge/report.ts';

interface MergeOptions {
  readonly strategy: string;
  readonly rank: number;
  readonly out: string;
  readonly global?: string;
  readonly report?: string;
  readonly jobs: number;
}

export const registerMerge: Register = (program) => {
  const command = program
    .command('merge')
    .description('Merge PEFT LoRA adapters of any ranks into one.')
    .argument('<adapters...>', 'ADAPTER_DIR[=WEIGHT][@START_DIR]: a folder, how much it counts, what it started from')
    .requiredOption('--strategy <name>', `how to merge: ${STRATEGY_NAMES.join(', ')}`)
    .requiredOption('--rank <r>', 'rank of the merged adapter', numberOption('--rank', { minimum: 1, integer: true }))
    .requiredOption('--out <dir>', 'new folder for the merged adapter')
    .option('--global <dir>', 'the merged adapter of the round before, for strategies that merge changes')
    .option('--report <dir>', 'new folder for report.json and report.html: energy by rank, what it loses, agreement');
  command.option(
    '--jobs <n>',
    'processes that merge matrices side by side; memory is that of one matrix each',
    numberOption('--jobs', { minimum: 1, integer: true }),
    defaultProcesses(),
  );
  action<MergeOptions>(command, mergeFolders);
};

/** What the merge says about one matrix. */
interface ModuleReport {
  readonly module: string;
  /** [out, in] */
  readonly shape: readonly [number, number];
  /** ‖M − M_R‖ / ‖M‖ in the Frobenius norm, M_R what is written: what the chosen rank loses. */
  readonly truncationError: number;
  /** The largest singular values of M, as many as the rank keeps. */
  readonly sigma: readonly number[];
  readonly effectiveRank: number;
}

async function mergeFolders(options: MergeOptions, args: readonly string[], io: Io): Promise<void> {
  const strategy = requireStrategy(options.strategy);
  const given = args.map((text) => parseWeightedAdapter(text, isFolder));
  const weights = weightsOf(given);
  requireStarts(strategy, options, given, io);
  await requireNewFolder('--out', options.out);
  if (options.report !== undefined) await requireNewFolder('--report', options.report);
  const { global, inputs, baseModel } = await openInputs(options.global, given, io);
  const shares = normaliseWeights(weights);
  const weighted = inputs.map((input, i) => ({ ...input, weight: weights[i] ?? 0, share: shares[i] ?? 0 }));
  const { matrices, merged: reports } = await mergeAll(
    commonModules(weighted, global),
    (module) => jobOf(module, options, weighted, global),
    options.jobs,
    io,
  );
  const adapters = weighted.map(({ end, start, weight, share }) => ({
    path: end.path,
    weight,
    share,
    ranks: ranksOf(end),
    ...(start === null ? {} : { start: start.path }),
  }));
  const modules = reports.map(({ module, shape, lost, sigma, effectiveRank }): ModuleReport => {
    return { module, shape, truncationError: lost, sigma: sigma.slice(0, options.rank), effectiveRank };
  });
  const merged: LoraAdapter = { baseModel, rslora: false, matrices };
  await writeAdapterFolder(options.out, merged, cardOf(options, merged, adapters));
  if (options.report !== undefined) {
    const report: MergeReport = { strategy: strategy.name, rank: options.rank, baseModel, adapters, modules: reports };
    await mkdir(options.report, { recursive: true });
    await writeFile(join(options.report, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
    await writeFile(join(options.report, 'report.html'), reportPage(report));
  }
  const document = {
    out: options.out,
    rank: options.rank,
    strategy: strategy.name,
    baseModel,
    global: options.global ?? null,
    adapters,
    modules,
  };
  io.result(document, () =>
    [
      table([
        ['adapter', 'rank', 'weight', 'share'],
        ...adapters.map(({ path, ranks, weight, share }) => [path, ranks.join(', '), weight, share.toFixed(4)]),
      ]),
      summary(modules),
      `The merged adapter of rank ${options.rank} is in ${options.out}.`,
      ...(options.report === undefined ? [] : [`What the merge did is in ${join(options.report, 'report.html')}.`]),
    ].join('\n\n'),
  );
}

type WeightedInput = MergeInput & { readonly share: number };

/** The matrices that all adapt, in the order of names. Throws MergeError 'modules' or 'shape' naming the first that differs. */
function commonModules(inputs: readonly WeightedInput[], global: OpenedAdapter | null): string[] {
  const shapes = ({ layout }: OpenedAdapter): ReadonlyMap<string, Shape> => layout.matrices;
  const adapters = inputs.map(({ end, start }) => ({
    name: end.path,
    end: shapes(end),
    start: start && shapes(start),
  }));
  return [...commonMatrices(adapters, global && shapes(global)).keys()];
}

/** Where the factors of one matrix lie. */
function jobOf(
  module: string,
  { strategy, rank }: MergeOptions,
  inputs: readonly WeightedInput[],
  global: OpenedAdapter | null,
): MatrixJob {
  const stored = ({ path, file, layout }: OpenedAdapter): StoredPair => {
    const pair = layout.matrices.get(module);
    if (!pair) throw new MergeError('modules', `${path} does not adapt ${module}.`);
    return { path, file, pair };
  };
  const updates = inputs.map(({ end, start, share }) => ({
    weight: share,
    end: stored(end),
    start: start && stored(start),
  }));
  return { module, strategy, rank, global: global && stored(global), updates };
}

async function mergeAll(
  modules: readonly string[],
  job: (module: string) => MatrixJob,
  jobs: number,
  io: Io,
): Promise<{ matrices: Map<string, LoraFactors>; merged: MergedModule[] }> {
  const done = new Map<string, MergedMatrix>();
  await mergeMatrices(modules, job, {
    jobs,
    signal: io.signal,
    onMerged(merged) {
      done.set(merged.report.module, merged);
      io.status(`merging ${done.size}/${modules.length}  ${merged.report.module}`);
    },
  });
  // Processes finish in any order.
  const ordered = modules.flatMap((module) => done.get(module) ?? []);
  return {
    matrices: new Map(ordered.map(({ factors }) => [factors.module, factors])),
    merged: ordered.map(({ report }) => report),
  };
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

function requireStrategy(name: string): Strategy {
  try {
    return strategyByName(name);
  } catch (cause) {
    if (cause instanceof MergeError && cause.code === 'unknown-strategy')
      throw new UsageError(`--strategy: ${cause.message}`);
    throw cause;
  }
}

/** A strategy that merges changes needs the state and every start; for the others they make no difference, which is said. */
function requireStarts(
  { name, needsStart, mergesChanges }: Strategy,
  { global }: MergeOptions,
  adapters: readonly WeightedAdapter[],
  io: Io,
): void {
  if (!needsStart) {
    const unused = [
      ...(global !== undefined && !mergesChanges ? ['--global'] : []),
      ...(adapters.some(({ start }) => start !== null) ? ['@START_DIR'] : []),
    ];
    if (unused.length > 0) io.note(`${name} does without ${unused.join(' and ')}: checked, but without effect.`);
    return;
  }
  const bare = adapters.filter(({ start }) => start === null).map(({ path }) => path);
  const missing = [
    ...(global === undefined ? ['--global DIR, the merged adapter of the round before'] : []),
    ...(bare.length === 0 ? [] : [`@START_DIR, what it started from, after ${bare.join(', ')}`]),
  ];
  if (missing.length > 0) throw new UsageError(`${name} merges changes; give ${missing.join('; and ')}.`);
}

/** Throws CommandError 'out-exists' unless the path is free or an empty folder. */
async function requireNewFolder(option: string, path: string): Promise<void> {
  if (statSync(path, { throwIfNoEntry: false }) === undefined) return;
  if (!isFolder(path)) throw new CommandError('out-exists', `${path} is a file; choose another folder for ${option}.`);
  if ((await readdir(path)).length > 0)
    throw new CommandError('out-exists', `${path} is not empty; choose a new folder for ${option}.`);
}

const ranksOf = (adapter: OpenedAdapter): number[] =>
  [...new Set([...adapter.layout.matrices.values()].map(({ rank }) => rank))].sort((a, b) => a - b);

/** One row for each kind of matrix, such as q_proj. */
function summary(modules: readonly ModuleReport[]): string {
  const kinds = new Map<string, ModuleReport[]>();
  for (const report of modules) {
    const kind = report.module.slice(report.module.lastIndexOf('.') + 1);
    kinds.set(kind, [...(kinds.get(kind) ?? []), report]);
  }
  const rows = [...kinds].map(([kind, reports]) => [
    kind,
    reports.length,
    [...new Set(reports.map(({ shape }) => shape.join(' × ')))].join(', '),
    Math.max(...reports.map((report) => report.truncationError)).toExponential(2),
    (reports.reduce((sum, report) => sum + report.effectiveRank, 0) / reports.length).toFixed(1),
  ]);
  return table([['matrices', 'count', 'shape', 'largest truncation error', 'mean effective rank'], ...rows]);
}

/** README.md of the adapter folder, as model hubs read it. */
function cardOf(
  { strategy, global }: MergeOptions,
  adapter: LoraAdapter,
  inputs: readonly { path: string; weight: number; ranks: readonly number[]; start?: string }[],
): string {
  const { baseModel } = adapter;
  return modelCard({
    title: 'Merged LoRA adapter',
    summary: `Merged with \`weft merge\` for ${baseModel === '' ? 'a base model that its inputs do not name' : `the base model ${baseModel}`}, whose licence applies to it.`,
    adapter,
    tags: ['federated'],
    federation: { strategy, updates: inputs.length },
    facts: global === undefined ? [] : [['merged onto', global]],
    sections: [
      {
        title: 'Inputs',
        lines: inputs.map(
          ({ path, weight, ranks, start }) =>
            `- ${path}: rank ${ranks.join(', ')}, weight ${weight}${start === undefined ? '' : `, started from ${start}`}`,
        ),
      },
    ],
  });
}
