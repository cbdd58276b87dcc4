// `weft train`: LoRA training of one model on one file, without a server; and with --grads the door for outside checks.
import { type LoraAdapter, type LoraFactors, PROJECTIONS, type Projection, padRank } from '@weft/formats';
import {
  checkAdapter,
  encodeRows,
  GpuModel,
  initialAdapter,
  lossAndGradients,
  plainSpec,
  StepGraph,
  sequenceFor,
  train,
  writeGradients,
} from '@weft/trainer';
import { action, formatMs, type Io, numberOption, table, UsageError } from '../command.ts';
import { readAdapterFolder, readModelFolder, readRows, writeAdapterFolder, writeOutput } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import type { Register } from '../program.ts';

interface TrainOptions {
  readonly model: string;
  readonly data: string;
  readonly rank?: number;
  readonly out?: string;
  readonly steps: number;
  readonly batch: number;
  readonly seq?: number;
  readonly lr: number;
  readonly alpha?: number;
  readonly targets?: readonly Projection[];
  readonly seed: number;
  readonly adapter?: string;
  readonly grads?: string;
}

/** Rows are cut to this many tokens when --seq is left out. */
const DEFAULT_SEQUENCE = 512;

const count = (name: string) => numberOption(name, { minimum: 1, integer: true });

function positive(name: string): (text: string) => number {
  const parse = numberOption(name);
  return (text) => {
    const value = parse(text);
    if (value <= 0) throw new UsageError(`${name} must be more than 0, not ${text}.`);
    return value;
  };
}

function targetsOption(text: string): Projection[] {
  const names = text.split(',').map((name) => name.trim());
  const stray = names.find((name) => !PROJECTIONS.some((projection) => projection === name));
  if (stray !== undefined)
    throw new UsageError(`--targets has "${stray}"; choose from ${PROJECTIONS.join(', ')}, separated by commas.`);
  return PROJECTIONS.filter((projection) => names.includes(projection));
}

export const registerTrain: Register = (program) => {
  const command = program
    .command('train')
    .description('Train a LoRA adapter on one file, and write it as PEFT does.')
    .requiredOption('--model <dir>', 'folder of a Llama-architecture model, as on Hugging Face')
    .requiredOption('--data <file>', 'JSONL: {"prompt", "completion"} or {"input_ids", "labels"} a line')
    .option('--rank <r>', 'rank of the new adapter', count('--rank'))
    .option('--out <dir>', 'folder for the trained adapter')
    .option('--steps <n>', 'optimiser steps', count('--steps'), 100)
    .option('--batch <n>', 'rows a step', count('--batch'), 8)
    .option(
      '--seq <n>',
      `longest row in tokens (default: the model's context, at most ${DEFAULT_SEQUENCE})`,
      count('--seq'),
    )
    .option(
      '--lr <x>',
      'highest learning rate; a tenth of the steps warm up, the rest decay to 0',
      positive('--lr'),
      1e-3,
    )
    .option('--alpha <x>', 'LoRA alpha (default: twice the rank)', positive('--alpha'))
    .option('--targets <names>', `projections to adapt (default: all of ${PROJECTIONS.join(',')})`, targetsOption)
    .option(
      '--seed <n>',
      'seed of the first factors and of the order of rows',
      numberOption('--seed', { integer: true }),
      0,
    )
    .option('--adapter <dir>', 'go on from this PEFT adapter; it fixes rank, alpha and targets')
    .option(
      '--grads <file>',
      'write loss and LoRA gradients of the whole file as one batch to this safetensors file, and train nothing',
    );
  action<TrainOptions>(command, async (options, _args, io) => {
    if (options.grads === undefined && options.out === undefined)
      throw new UsageError('Where should the adapter go? Give --out DIR.');
    if (options.adapter === undefined && options.rank === undefined)
      throw new UsageError('Which rank? Give --rank R, or --adapter DIR to go on from an adapter.');
    if (options.grads === undefined) await trainToFolder(options, io);
    else await gradientsToFile(options, options.grads, io);
  });
};

/** The adapter to begin with: the one given, which must agree with what else is asked, or a fresh one. */
async function startAdapter(options: TrainOptions, config: Parameters<typeof initialAdapter>[0]): Promise<LoraAdapter> {
  const { rank, alpha, targets, seed, model } = options;
  if (options.adapter === undefined) {
    if (rank === undefined) throw new UsageError('Which rank? Give --rank R.');
    return { ...initialAdapter(config, plainSpec(rank, alpha, targets), String(seed)), baseModel: model };
  }
  const adapter = await readAdapterFolder(options.adapter);
  checkAdapter(config, adapter);
  const matrices = [...adapter.matrices.values()];
  const disagree = (option: string, asked: string, has: string): never => {
    throw new UsageError(`${option} ${asked} disagrees with --adapter, which has ${has}; leave ${option} out.`);
  };
  const ranks = [...new Set(matrices.map((matrix) => matrix.rank))];
  if (rank !== undefined && !ranks.includes(rank)) disagree('--rank', String(rank), `rank ${ranks.join(', ')}`);
  const alphas = [...new Set(matrices.map((matrix) => matrix.alpha))];
  if (alpha !== undefined && !alphas.includes(alpha)) disagree('--alpha', String(alpha), `alpha ${alphas.join(', ')}`);
  const adapted = targetNames(adapter);
  if (targets !== undefined && targets.join() !== adapted.join()) disagree('--targets', targets.join(), adapted.join());
  return adapter;
}

const targetNames = ({ matrices }: LoraAdapter): Projection[] =>
  PROJECTIONS.filter((projection) => [...matrices.keys()].some((module) => module.endsWith(`.${projection}`)));

/** Padded with zeros to the rank asked for, where a matrix is too small to be trained at it: a file has one rank. */
const uniform = (
  factors: ReadonlyMap<string, LoraFactors>,
  rank: number | undefined,
  rslora: boolean,
): Map<string, LoraFactors> =>
  new Map(
    [...factors].map(([module, own]) => [
      module,
      rank !== undefined && own.rank < rank ? padRank(own, rank, rslora) : own,
    ]),
  );

/** One number where all matrices agree, else all that occur. */
function distinct(values: readonly number[]): number | number[] {
  const found = [...new Set(values)].sort((a, b) => a - b);
  return found.length === 1 ? (found[0] ?? 0) : found;
}

async function trainToFolder(options: TrainOptions, io: Io): Promise<void> {
  const model = await readModelFolder(options.model);
  const { maxPositions } = model.config;
  if (options.seq !== undefined && options.seq > maxPositions)
    throw new UsageError(`--seq ${options.seq} is beyond the model's context of ${maxPositions} tokens.`);
  const limit = options.seq ?? Math.min(maxPositions, DEFAULT_SEQUENCE);
  const { examples, truncated, unlabelled } = encodeRows(await readRows(options.data), model, limit);
  const start = await startAdapter(options, model.config);
  const matrices = [...start.matrices.values()];
  const shape = { batch: options.batch, sequence: sequenceFor(examples, limit) };
  const settings = {
    steps: options.steps,
    learningRate: options.lr,
    schedule: 'linear',
    warmupSteps: Math.floor(options.steps / 10),
    weightDecay: 0,
    maxGradNorm: 1,
    seed: String(options.seed),
  } as const;
  await withGpu(async (gpu) => {
    const onGpu = await GpuModel.upload(gpu, model);
    const graph = await StepGraph.create(onGpu, matrices, shape, {
      training: true,
      onCompile: (done, total) => io.status(`compiling kernels ${done}/${total}`),
    });
    const began = performance.now();
    const outcome = await train(graph, start, examples, settings, {
      signal: io.signal,
      onStep: ({ step, steps, loss, tokensPerSecond }) =>
        io.status(`step ${step}/${steps}  loss ${loss.toFixed(4)}  ${tokensPerSecond.toFixed(0)} tokens/s`),
    });
    const milliseconds = performance.now() - began;
    const out = options.out ?? '';
    const trained: LoraAdapter = { ...start, matrices: uniform(outcome.factors, options.rank, start.rslora) };
    await writeAdapterFolder(out, trained, modelCard(options, trained, outcome.losses));
    const document = {
      adapter: out,
      rank: distinct(matrices.map(({ rank }) => rank)),
      alpha: distinct(matrices.map(({ alpha }) => alpha)),
      targets: targetNames(start),
      settings: { ...settings, ...shape },
      rows: examples.length,
      truncatedRows: truncated,
      unlabelledRows: unlabelled,
      steps: outcome.steps,
      targetTokens: outcome.targetTokens,
      firstLoss: outcome.losses[0],
      lastLoss: outcome.losses.at(-1),
      losses: outcome.losses,
      tokensPerSecond: outcome.tokensPerSecond,
      milliseconds,
      gpu: gpuName(gpu),
    };
    io.result(document, () =>
      [
        table([
          ['steps', 'rows', 'truncated', 'first loss', 'last loss', 'tokens/s'],
          [
            outcome.steps,
            examples.length,
            truncated,
            document.firstLoss?.toFixed(4) ?? '–',
            document.lastLoss?.toFixed(4) ?? '–',
            outcome.tokensPerSecond.toFixed(0),
          ],
        ]),
        `The adapter is in ${out} (${formatMs(milliseconds)} on ${document.gpu.name}).`,
      ].join('\n\n'),
    );
  });
}

async function gradientsToFile(options: TrainOptions, file: string, io: Io): Promise<void> {
  const model = await readModelFolder(options.model);
  const limit = options.seq ?? model.config.maxPositions;
  const { examples, truncated, unlabelled } = encodeRows(await readRows(options.data), model, limit);
  const adapter = await startAdapter(options, model.config);
  io.status(`gradients of ${examples.length} rows`);
  await withGpu(async (gpu) => {
    const onGpu = await GpuModel.upload(gpu, model);
    const result = await lossAndGradients(onGpu, adapter, examples);
    await writeOutput(file, writeGradients(result));
    const document = {
      grads: file,
      loss: result.loss,
      rows: examples.length,
      truncatedRows: truncated,
      unlabelledRows: unlabelled,
      targetTokens: examples.reduce((sum, { targets }) => sum + targets, 0),
      gpu: gpuName(gpu),
    };
    io.result(
      document,
      () => `Loss ${result.loss.toFixed(6)} over ${document.targetTokens} labelled tokens; gradients are in ${file}.`,
    );
  });
}

/** README.md of the adapter folder, as model hubs read it. */
function modelCard(options: TrainOptions, adapter: LoraAdapter, losses: readonly number[]): string {
  const ranks = [...new Set([...adapter.matrices.values()].map(({ rank }) => rank))].sort((a, b) => a - b);
  const lines = [
    '---',
    'library_name: peft',
    'tags: [lora, weft]',
    '---',
    '',
    '# LoRA adapter',
    '',
    `Trained with \`weft train\` on the base model ${adapter.baseModel || options.model}, whose licence applies to it.`,
    '',
    `- Rank: ${ranks.join(', ')}; adapted: ${targetNames(adapter).join(', ')}`,
    `- Steps: ${losses.length} of ${options.batch} rows, AdamW, learning rate ${options.lr}`,
    `- Training loss of the last step: ${losses.at(-1)?.toFixed(4) ?? 'none'} nats per labelled token`,
  ];
  return `${lines.join('\n')}\n`;
}
