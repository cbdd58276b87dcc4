// A training from data file to adapter folder: on the fastest way that fits, over lost devices, with snapshots.
import { join } from 'node:path';
import type { LoraAdapter } from '@weft/formats';
import {
  fitMemory,
  optimiserOf,
  type TrainOutcome,
  type TrainSettings,
  type TrainSnapshot,
  trainThroughLoss,
} from '@weft/trainer';
import { CommandError, type Io } from '../../command.ts';
import { readModelFolder, writeAdapterFolder, writeOutput } from '../../folders.ts';
import { gpuName, withGpu } from '../../gpu.ts';
import { stepLimits } from '../../options.ts';
import { settingsOf, type TrainOptions } from './options.ts';
import { cardOf, reportText, type TrainReport } from './report.ts';
import { type TrainingRows, trainingRows } from './rows.ts';
import { TrainingGpu, type TrainingJob } from './session.ts';
import { readSnapshotFile, recordOf, type TrainingRecord, writeSnapshotFile } from './snapshot-file.ts';
import { distinct, exported, readSides, startAdapter, targetNames } from './start.ts';

/** Without --snapshot, a lost device costs at most the work of so long. */
const SNAPSHOT_MS = 10_000;

interface Training {
  readonly options: TrainOptions;
  readonly job: TrainingJob;
  readonly data: TrainingRows;
  readonly settings: TrainSettings;
  readonly record: TrainingRecord;
  /** The adapter a training begins with. */
  readonly fresh: LoraAdapter;
  readonly resumed: TrainSnapshot | null;
}

async function prepare(options: TrainOptions, io: Io): Promise<Training> {
  const model = await readModelFolder(options.model, io);
  const data = await trainingRows(options, model);
  const fresh = await startAdapter(options, model);
  const sides = await readSides(options, model.config);
  const settings = settingsOf(options, data.rows.length);
  const record = recordOf(options, settings, data, fresh, sides);
  const asked = stepLimits(options, options.batch);
  const resumed = options.resume === undefined ? null : await readSnapshotFile(options.resume, record, asked);
  const { trainable, dropout } = options;
  const request = { trainable, optimiser: optimiserOf(options), dropout, sides, ...asked, ...resumed?.way };
  const shape = { batch: options.batch, sequence: data.sequence };
  const job = { model, matrices: [...fresh.matrices.values()], shape, request, weights: options.weights };
  return { options, job, data, settings, record, fresh, resumed: resumed?.snapshot ?? null };
}

export async function trainToFolder(options: TrainOptions, out: string, io: Io): Promise<void> {
  const training = await prepare(options, io);
  const { job, data, fresh } = training;
  await withGpu(async (gpu, reopen) => {
    const session = await TrainingGpu.open(job, gpu, reopen, io);
    const { heldOut } = data;
    const expected = fitMemory(job.model.config, job.matrices, job.shape, {
      ...job.request,
      weights: job.weights,
      // Arithmetic alone: the device has its say when the step is made.
      slabLimit: Number.MAX_SAFE_INTEGER,
    });
    const before = heldOut && (await session.heldOutLoss(fresh, heldOut.examples, expected.plan.microBatch));
    const { outcome, milliseconds, deviceLosses } = await run(training, session, io);
    const trained: LoraAdapter = { ...fresh, matrices: outcome.factors };
    const adapter = exported(trained, options);
    const report: TrainReport = { ...reportOf(training, session, outcome), adapter: out, milliseconds, deviceLosses };
    await writeAdapterFolder(out, adapter, cardOf(adapter, options, report));
    if (!heldOut || !before) {
      io.result(report, () => reportText(report));
      return;
    }
    const after = await session.heldOutLoss(trained, heldOut.examples, report.memory.microBatch);
    const measured = { rows: before.rows, duplicates: heldOut.duplicates, before: before.loss, after: after.loss };
    const whole = { ...report, heldOut: measured };
    await writeOutput(join(out, 'README.md'), cardOf(adapter, options, whole));
    io.result(whole, () => reportText(whole));
  });
}

/** Trains to the end, or to an interruption. Throws CommandError 'interrupted'. */
async function run(
  { options, data, settings, record, fresh, resumed }: Training,
  session: TrainingGpu,
  io: Io,
): Promise<{ outcome: TrainOutcome; milliseconds: number; deviceLosses: number }> {
  const { snapshot: file } = options;
  let deviceLosses = 0;
  const began = performance.now();
  const outcome = await trainThroughLoss((lost) => session.makeGraph(lost), resumed ?? fresh, data.rows, settings, {
    // With a file to keep it in, an interrupted training ends after the step in progress; else at once.
    ...(file === undefined ? { signal: io.signal } : { finishEarly: () => io.signal.aborted }),
    snapshotMs: file === undefined ? SNAPSHOT_MS : options.snapshotEvery * 1000,
    onSnapshot: async (snapshot) => {
      if (file !== undefined) await writeSnapshotFile(file, snapshot, record, session.made.plan);
    },
    onStep: ({ step, steps, loss, tokensPerSecond }) =>
      io.status(`step ${step}/${steps}  loss ${loss.toFixed(4)}  ${tokensPerSecond.toFixed(0)} tokens/s`),
    onLost: (error) => {
      deviceLosses += 1;
      io.note(`${error.message} Training goes on with a new one.`);
    },
  });
  const milliseconds = performance.now() - began;
  const { graph, plan } = session.made;
  if (file !== undefined) {
    const adapter = { ...fresh, matrices: outcome.factors };
    const snapshot = { adapter, optimiser: await graph.readOptimiser(), tally: outcome.tally };
    await writeSnapshotFile(file, snapshot, record, plan);
  }
  graph.destroy();
  if (outcome.steps < settings.steps) {
    throw new CommandError(
      'interrupted',
      `Interrupted after step ${outcome.steps} of ${settings.steps}; the same command with --resume ${file} goes on from there.`,
    );
  }
  return { outcome, milliseconds, deviceLosses };
}

function reportOf(
  { options, job, data, settings, fresh, resumed }: Training,
  session: TrainingGpu,
  outcome: TrainOutcome,
) {
  return {
    rank: distinct(job.matrices.map(({ rank }) => rank)),
    alpha: distinct(job.matrices.map(({ alpha }) => alpha)),
    targets: targetNames(fresh),
    settings: { ...settings, ...job.shape, optimiser: job.request.optimiser },
    weights: options.weights,
    memory: session.made.plan,
    rows: data.examples.length,
    packedRows: options.pack ? data.rows.length : null,
    truncatedRows: data.truncated,
    unlabelledRows: data.unlabelled,
    steps: outcome.steps,
    resumedAfter: resumed?.tally.steps ?? null,
    targetTokens: outcome.targetTokens,
    firstLoss: outcome.losses[0],
    lastLoss: outcome.losses.at(-1),
    losses: outcome.losses,
    heldOut: null,
    tokensPerSecond: outcome.tokensPerSecond,
    gpu: gpuName(session.gpu),
  };
}
