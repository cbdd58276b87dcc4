// The options of `weft train`, and what they mean together.
import { PROJECTIONS, type Projection } from '@weft/formats';
import { OPTIMISERS, type OptimiserName, type ScheduleName, type Trainable, type TrainSettings } from '@weft/trainer';
import type { Command } from 'commander';
import { numberOption, UsageError } from '../../command.ts';
import {
  choice,
  count,
  DATA_HELP,
  type DataOptions,
  dataOptions,
  fraction,
  type MemoryOptions,
  memoryOptions,
  modelOption,
  patternOption,
  positive,
  repeated,
  targetsOption,
} from '../../options.ts';

export interface TrainOptions extends MemoryOptions, DataOptions {
  readonly model: string;
  readonly data: string;
  readonly rank?: number;
  readonly out?: string;
  readonly steps?: number;
  readonly epochs?: number;
  readonly batch: number;
  readonly seq?: number;
  readonly pack?: boolean;
  readonly heldOut?: number;
  readonly lr: number;
  readonly schedule: ScheduleName;
  readonly warmup?: number;
  readonly optimiser: OptimiserName;
  readonly momentum: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
  readonly dropout: number;
  readonly alpha?: number;
  readonly targets?: readonly Projection[];
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  readonly rslora?: boolean;
  readonly trainable: Trainable;
  readonly keepRanks?: boolean;
  readonly side?: readonly string[];
  readonly seed: number;
  readonly adapter?: string;
  readonly snapshot?: string;
  readonly snapshotEvery: number;
  readonly resume?: string;
  readonly grads?: string;
}

/** Rows are cut to this many tokens when --seq is left out. */
const DEFAULT_SEQUENCE = 512;
const DEFAULT_STEPS = 100;

const HELP = `
Patterns name modules by the end of their names, as PEFT does: --rank-pattern 'q_proj=8,layers.0.mlp.up_proj=4'.
An interrupted training goes on with the same losses: give the same command again with --resume FILE.

Examples:
  weft train --model models/mine --data rows.jsonl --rank 8 --out adapter
  weft train --model hf:HuggingFaceTB/SmolLM2-135M --data chats.jsonl --rank 16 --weights q8 --budget 1000 --held-out 0.1 --out adapter
  weft train --model models/mine --data qa.csv --columns prompt=question,completion=answer --rank 8 --epochs 3 --pack --out adapter`;

export function trainOptions(command: Command): Command {
  modelOption(command)
    .requiredOption('--data <file>', DATA_HELP)
    .option('--rank <r>', 'rank of the new adapter', count('--rank'))
    .option('--out <dir>', 'folder for the trained adapter')
    .option('--steps <n>', `optimiser steps (default: ${DEFAULT_STEPS})`, count('--steps'))
    .option('--epochs <n>', 'passes over the rows, instead of --steps', positive('--epochs'))
    .option('--batch <n>', 'rows a step', count('--batch'), 8)
    .option(
      '--seq <n>',
      `longest row in tokens (default: the model's context, at most ${DEFAULT_SEQUENCE})`,
      count('--seq'),
    )
    .option('--pack', 'put several short examples into a row of --seq tokens; they do not see each other')
    .option(
      '--held-out <fraction>',
      'keep this part of the rows from training, and print their loss before and after',
      fraction('--held-out', { open: true }),
    )
    .option('--lr <x>', 'highest learning rate', positive('--lr'), 1e-3)
    .option(
      '--schedule <name>',
      'after the warm-up: constant, linear or cosine to 0',
      choice('--schedule', ['constant', 'linear', 'cosine'] as const),
      'linear',
    )
    .option(
      '--warmup <n>',
      'steps of linear warm-up (default: a tenth)',
      numberOption('--warmup', { minimum: 0, integer: true }),
    )
    .option(
      '--optimiser <name>',
      'adamw, or sgd, which keeps nothing of a factor between steps',
      choice('--optimiser', OPTIMISERS),
      'adamw',
    )
    .option('--momentum <x>', 'of sgd, which then keeps one number a factor', fraction('--momentum'), 0)
    .option(
      '--weight-decay <x>',
      'decoupled with adamw; with sgd added to the gradient',
      numberOption('--weight-decay', { minimum: 0 }),
      0,
    )
    .option(
      '--max-grad-norm <x>',
      'clip gradients to this norm; 0: never',
      numberOption('--max-grad-norm', { minimum: 0 }),
      1,
    )
    .option('--dropout <p>', 'share of LoRA’s inputs dropped while training', fraction('--dropout'), 0)
    .option('--alpha <x>', 'LoRA alpha (default: twice the rank)', positive('--alpha'))
    .option('--targets <names>', `projections to adapt (default: all of ${PROJECTIONS.join(',')})`, targetsOption)
    .option(
      '--rank-pattern <map>',
      'ranks of some modules, as q_proj=8',
      patternOption('--rank-pattern', count('--rank-pattern')),
    )
    .option(
      '--alpha-pattern <map>',
      'alphas of some modules',
      patternOption('--alpha-pattern', positive('--alpha-pattern')),
    )
    .option('--rslora', 'scale by alpha/√rank instead of alpha/rank (use_rslora)')
    .option(
      '--trainable <factors>',
      'both, A alone or B alone',
      choice('--trainable', ['both', 'A', 'B'] as const),
      'both',
    )
    .option('--keep-ranks', 'write matrices at the ranks they were trained at, instead of one for all')
    .option('--side <dir>', 'frozen PEFT adapter to train beside; may be given several times', repeated)
    .option(
      '--seed <n>',
      'seed of the first factors, of the order of rows and of the held-out part',
      numberOption('--seed', { integer: true }),
      0,
    )
    .option('--adapter <dir>', 'go on from this PEFT adapter; it fixes rank, alpha and targets')
    .option('--snapshot <file>', 'keep the state of the training here, also when it is interrupted')
    .option('--snapshot-every <seconds>', 'time between snapshots', positive('--snapshot-every'), 30)
    .option('--resume <file>', 'go on from a snapshot of the same command')
    .option(
      '--grads <file>',
      'write loss and LoRA gradients of the whole file as one batch to this safetensors file, and train nothing',
    );
  return dataOptions(memoryOptions(command)).addHelpText('after', HELP);
}

/** Throws UsageError for options that are missing or exclude each other. */
export function checkOptions(options: TrainOptions): void {
  if (options.grads === undefined && options.out === undefined)
    throw new UsageError('Where should the adapter go? Give --out DIR.');
  if (options.adapter === undefined && options.rank === undefined)
    throw new UsageError('Which rank? Give --rank R, or --adapter DIR to go on from an adapter.');
  if (options.steps !== undefined && options.epochs !== undefined)
    throw new UsageError('--steps and --epochs both say how long to train; give one of them.');
  if (options.adapter !== undefined) {
    const fixed = [
      ['--rank-pattern', options.rankPattern],
      ['--alpha-pattern', options.alphaPattern],
      ['--rslora', options.rslora],
    ].find(([, value]) => value !== undefined);
    if (fixed) throw new UsageError(`--adapter already says what ${fixed[0]} would; leave ${fixed[0]} out.`);
  }
  if (options.momentum > 0 && options.optimiser !== 'sgd')
    throw new UsageError('--momentum is of --optimiser sgd; adamw has its own.');
  if (options.trainable === 'A' && options.adapter === undefined)
    throw new UsageError(
      '--trainable A changes nothing in a new adapter, whose B is zero; give --adapter DIR, or train B.',
    );
  const untrained = [
    ['--resume', options.resume],
    ['--snapshot', options.snapshot],
    ['--held-out', options.heldOut],
  ].find(([, value]) => value !== undefined);
  if (options.grads !== undefined && untrained)
    throw new UsageError(`--grads trains nothing, so ${untrained[0]} has no place beside it.`);
}

/** Longest row in tokens. Throws UsageError for more than the model's context. */
export function rowLimit({ seq }: Pick<TrainOptions, 'seq'>, maxPositions: number): number {
  if (seq !== undefined && seq > maxPositions)
    throw new UsageError(`--seq ${seq} is beyond the model's context of ${maxPositions} tokens.`);
  return seq ?? Math.min(maxPositions, DEFAULT_SEQUENCE);
}

/** @param rows rows of a batch there are to train on */
export function settingsOf(options: TrainOptions, rows: number): TrainSettings {
  const { epochs } = options;
  const steps = epochs === undefined ? (options.steps ?? DEFAULT_STEPS) : Math.ceil((epochs * rows) / options.batch);
  return {
    steps,
    learningRate: options.lr,
    schedule: options.schedule,
    warmupSteps: options.warmup ?? Math.floor(steps / 10),
    weightDecay: options.weightDecay,
    maxGradNorm: options.maxGradNorm,
    seed: String(options.seed),
  };
}
