// The snapshot of a training on disk, with what it was trained by in its header: a training only goes on where all of that
// is the same, because only then are its losses those of an uninterrupted one.
import { createHash } from 'node:crypto';
import { readFile, rename } from 'node:fs/promises';
import { type LoraAdapter, type LoraFactors, readSafetensors, writeFactors } from '@weft/formats';
import { readSnapshot, TrainerError, type TrainSettings, type TrainSnapshot, writeSnapshot } from '@weft/trainer';
import { z } from 'zod';
import { CommandError, UsageError } from '../../command.ts';
import { systemCode, writeFailure } from '../../disk.ts';
import { writeOutput } from '../../folders.ts';
import type { TrainOptions } from './options.ts';
import { hashOfRows, type TrainingRows } from './rows.ts';

/** Everything a loss depends on, under the option that sets it. */
export type TrainingRecord = Readonly<Record<string, string | number | boolean>>;

/** How a step was computed: chosen for the device, and kept when training goes on. */
export interface StepWay {
  readonly microBatch: number;
  readonly checkpoint: boolean;
}

const wayKeys = { microBatch: z.int().positive(), checkpoint: z.boolean() };
const recordSchema = z.object({
  record: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  way: z.object(wayKeys),
});

const RECORD_KEY = 'weft_training';

const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

const hashOfFactors = (matrices: readonly LoraFactors[]): string =>
  sha256(JSON.stringify([sha256(writeFactors(matrices)), matrices.map(({ module, scale }) => [module, scale])]));

export function recordOf(
  options: TrainOptions,
  settings: TrainSettings,
  rows: TrainingRows,
  start: LoraAdapter,
  sides: readonly (readonly LoraFactors[])[],
): TrainingRecord {
  return {
    '--data': hashOfRows(rows.rows),
    '--seed': settings.seed,
    '--steps': settings.steps,
    '--batch': options.batch,
    '--seq': rows.sequence,
    '--lr': settings.learningRate,
    '--schedule': settings.schedule,
    '--warmup': settings.warmupSteps,
    '--optimiser': options.optimiser,
    '--momentum': options.momentum,
    '--weight-decay': settings.weightDecay,
    '--max-grad-norm': settings.maxGradNorm,
    '--dropout': options.dropout,
    '--trainable': options.trainable,
    '--weights': options.weights,
    '--rank, --alpha, --targets, --rslora, patterns or --adapter': hashOfFactors([...start.matrices.values()]),
    '--side': sha256(sides.map(hashOfFactors).join()),
  };
}

/** Writes beside the file first, so that a crash leaves the snapshot before. Throws CommandError 'unwritable'. */
export async function writeSnapshotFile(
  file: string,
  snapshot: TrainSnapshot,
  record: TrainingRecord,
  way: StepWay,
): Promise<void> {
  const partial = `${file}.partial`;
  await writeOutput(partial, writeSnapshot(snapshot, { [RECORD_KEY]: JSON.stringify({ record, way }) }));
  await rename(partial, file).catch((cause: unknown) => {
    throw writeFailure(file, cause);
  });
}

const isHash = (value: unknown): boolean => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);

/**
 * Throws CommandError 'no-such-file', TrainerError 'bad-snapshot', or UsageError naming every option that differs from what
 * the snapshot was trained with.
 */
export async function readSnapshotFile(
  file: string,
  record: TrainingRecord,
  asked: Partial<StepWay>,
): Promise<{ snapshot: TrainSnapshot; way: StepWay }> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw systemCode(cause) === 'ENOENT'
      ? new CommandError('no-such-file', `There is no snapshot ${file} to go on from.`, { cause })
      : new CommandError('unreadable', `${file} cannot be read; check that it is a file you may read.`, { cause });
  });
  const snapshot = readSnapshot(bytes, file);
  const text = readSafetensors(bytes, file).metadata[RECORD_KEY];
  if (text === undefined)
    throw new TrainerError('bad-snapshot', `${file} does not say what it was trained with; begin again without it.`);
  let known: z.output<typeof recordSchema>;
  try {
    known = recordSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new TrainerError('bad-snapshot', `${file} was written by another version; begin again without it.`, {
      cause,
    });
  }
  const had: TrainingRecord = {
    ...known.record,
    '--micro-batch': known.way.microBatch,
    '--checkpoint': known.way.checkpoint,
  };
  const now: TrainingRecord = {
    ...record,
    '--micro-batch': asked.microBatch ?? known.way.microBatch,
    '--checkpoint': asked.checkpoint ?? known.way.checkpoint,
  };
  const differing = Object.keys({ ...had, ...now }).filter((name) => had[name] !== now[name]);
  if (differing.length > 0) {
    const details = differing.map((name) => (isHash(now[name]) ? name : `${name} (was ${had[name]}, is ${now[name]})`));
    throw new UsageError(
      `${file} was trained otherwise; give the command as it was. What differs: ${details.join('; ')}.`,
    );
  }
  return { snapshot, way: known.way };
}
