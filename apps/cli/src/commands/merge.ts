// `weft merge`: PEFT adapters of any ranks into one of a chosen rank, without a server. One matrix at a time, so that a large
// model needs the memory of its adapters and of one merged matrix.
import { statSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type AdapterMerge,
  type Factors,
  isLowRank,
  MergeError,
  mergeByModule,
  normaliseWeights,
  normOfSum,
  readOutState,
  STRATEGY_NAMES,
  type State,
  type Strategy,
  stateOf,
  strategyByName,
} from '@weft/flexlora';
import { FormatError, type LoraAdapter, type LoraFactors, modelCard } from '@weft/formats';
import { action, CommandError, type Io, numberOption, table, UsageError } from '../command.ts';
import { readAdapterFolder, writeAdapterFolder } from '../folders.ts';
import type { Register } from '../program.ts';
import { parseWeightedAdapter, type WeightedAdapter, weightsOf } from '../weighted-adapter.ts';
import { type MergedModule, type MergeReport, reportPage } from './merge/report.ts';

interface MergeOptions {
  readonly strategy: string;
  readonly rank: number;
  readonly out: string;
  readonly global?: string;
  readonly report?: string;
}

/** s of the merged adapter, α = 2r: the default convention of this project. */
const SCALE = 2;

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
  action<MergeOptions>(command, mergeFolders);
};

type Matrices = LoraAdapter['matrices'];

interface Input {
  readonly path: string;
  readonly end: Matrices;
  readonly start: Matrices | null;
}

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
  const { global, inputs, baseModel } = await readInputs(options, given, io);
  const shares = normaliseWeights(weights);
  const updates = inputs.map(({ path, end, start }, i) => ({ name: path, weight: shares[i] ?? 0, end, start }));
  const current = global === null ? null : stateOf(global);
  const maxRank = () => Number.POSITIVE_INFINITY;
  const { matrices, merged: reports } = await mergeMatrices({ strategy, current, updates, maxRank }, options.rank, io);
  const adapters = given.map(({ path, start }, i) => ({
    path,
    weight: weights[i] ?? 1,
    share: shares[i] ?? 0,
    ranks: ranksOf(inputs[i]?.end ?? new Map()),
    ...(start === null ? {} : { start }),
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

/** Every folder once, however often it is named, and the base model they share. */
async function readInputs(
  options: MergeOptions,
  given: readonly WeightedAdapter[],
  io: Io,
): Promise<{ global: Matrices | null; inputs: Input[]; baseModel: string }> {
  const folders = new Map<string, LoraAdapter>();
  const read = async (path: string): Promise<Matrices> => {
    io.signal.throwIfAborted();
    io.status(`reading ${path}`);
    const adapter = folders.get(path) ?? (await readNamed(path));
    folders.set(path, adapter);
    return adapter.matrices;
  };
  const global = options.global === undefined ? null : await read(options.global);
  const inputs: Input[] = [];
  for (const { path, start } of given)
    inputs.push({ path, end: await read(path), start: start === null ? null : await read(start) });
  return { global, inputs, baseModel: commonBaseModel(folders, io) };
}

async function mergeMatrices(
  merge: AdapterMerge,
  rank: number,
  io: Io,
): Promise<{ matrices: Map<string, LoraFactors>; merged: MergedModule[] }> {
  const matrices = new Map<string, LoraFactors>();
  const merged: MergedModule[] = [];
  const total = merge.updates[0]?.end.size ?? 0;
  for (const { module, next, report } of mergeByModule(merge)) {
    const factors = readOutState(next, { rank, scale: SCALE, seed: `weft/${module}` });
    matrices.set(module, { ...factors, module, alpha: SCALE * rank });
    merged.push({ module, shape: [next.out, next.in], lost: lossOf(next, factors), ...report });
    io.status(`merging ${merged.length}/${total}  ${module}`);
    // A turn of the event loop, in which Ctrl-C is heard.
    await new Promise((resolve) => setImmediate(resolve));
    io.signal.throwIfAborted();
  }
  return { matrices, merged };
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

/** The errors of an adapter's files do not know in which folder these lie; here there are several. */
async function readNamed(path: string): Promise<LoraAdapter> {
  try {
    return await readAdapterFolder(path);
  } catch (cause) {
    if (!(cause instanceof FormatError)) throw cause;
    throw new CommandError(cause.code, `The adapter in ${path} cannot be merged.`, { cause });
  }
}

/** The last part of a path or hub name: the folders of one model differ from machine to machine. */
const lastPart = (name: string): string => name.split(/[/\\]/).findLast((part) => part !== '') ?? '';

/** The base model all name; '' when none does. Throws CommandError 'adapter-model' when two differ. */
function commonBaseModel(adapters: ReadonlyMap<string, LoraAdapter>, io: Io): string {
  let first: { path: string; baseModel: string } | null = null;
  for (const [path, { baseModel }] of adapters) {
    if (lastPart(baseModel) === '') continue;
    first ??= { path, baseModel };
    if (lastPart(baseModel) !== lastPart(first.baseModel)) {
      throw new CommandError(
        'adapter-model',
        `${path} adapts the model ${baseModel}, but ${first.path} adapts ${first.baseModel}; merge adapters of one ` +
          'model, or, if these are one, give both the same base_model_name_or_path in adapter_config.json.',
      );
    }
    if (baseModel !== first.baseModel)
      io.note(`Taking ${baseModel} (${path}) for the same model as ${first.baseModel} (${first.path}).`);
  }
  return first?.baseModel ?? '';
}

/** ‖M − M_R‖ / ‖M‖: of a decomposition from its singular values, since a difference would cancel. */
function lossOf(state: State, served: Factors): number {
  if (isLowRank(state)) {
    const norm = (from: number): number =>
      Math.sqrt(state.sigma.subarray(from).reduceRight((sum, value) => sum + value ** 2, 0));
    return served.rank >= state.sigma.length ? 0 : norm(served.rank) / norm(0);
  }
  if (served.rank >= state.rank) return 0;
  const whole = normOfSum([{ weight: 1, factors: state }]);
  const lost = normOfSum([
    { weight: 1, factors: state },
    { weight: -1, factors: served },
  ]);
  return whole === 0 ? 0 : lost / whole;
}

const ranksOf = (matrices: Matrices): number[] =>
  [...new Set([...matrices.values()].map(({ rank }) => rank))].sort((a, b) => a - b);

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
