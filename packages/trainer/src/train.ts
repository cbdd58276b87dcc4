// Local training: a number of optimiser steps on shuffled rows, from start factors, or from a snapshot, to trained ones.
import type { LoraAdapter, LoraFactors } from '@weft/formats';
import { type Batch, trainingBatches } from './data/batches.ts';
import type { Example } from './data/examples.ts';
import { learningRateAt, type ScheduleName } from './optim/schedule.ts';
import type { StepGraph, StepOutcome } from './plan/step.ts';
import { integerSeed } from './random.ts';
import type { TrainSnapshot, TrainTally } from './snapshot.ts';

export interface TrainSettings {
  readonly steps: number;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  /** 0 turns clipping off. */
  readonly maxGradNorm: number;
  /** Seeds the order of rows and the dropout masks. */
  readonly seed: string;
}

export interface StepReport {
  /** 1 for the first step. */
  readonly step: number;
  readonly steps: number;
  /** Nats per labelled target of this step's batch, before its update. */
  readonly loss: number;
  readonly gradientNorm: number;
  /** Labelled targets processed so far. */
  readonly targetTokens: number;
  /** Tokens without padding, a second, over the training so far. */
  readonly tokensPerSecond: number;
}

export interface TrainHooks {
  readonly signal?: AbortSignal;
  /** Resolves at once while running, later while paused. */
  whenRunning?(): Promise<void>;
  /** True ends training after the step in progress. */
  finishEarly?(): boolean;
  onStep?(report: StepReport): void;
  /** Takes snapshots, at least this many milliseconds apart. */
  readonly snapshotMs?: number;
  onSnapshot?(snapshot: TrainSnapshot): void | Promise<void>;
}

export interface TrainOutcome {
  readonly factors: ReadonlyMap<string, LoraFactors>;
  readonly losses: readonly number[];
  readonly steps: number;
  readonly targetTokens: number;
  readonly examples: number;
  readonly tokensPerSecond: number;
  /** What a snapshot taken now would say. */
  readonly tally: TrainTally;
}

const sumOf = (batches: readonly Batch[], count: (batch: Batch) => number): number =>
  batches.reduce((sum, batch) => sum + count(batch), 0);

/**
 * Trains the graph from `start`, on rows that hold one example each, or several packed ones. The result of a step is read
 * while the next one runs. The same snapshot gives the same steps as if training had never stopped. Rejects with
 * TrainerError 'non-finite', GpuError 'device-lost', or the signal's reason.
 */
export async function train(
  graph: StepGraph,
  start: LoraAdapter | TrainSnapshot,
  rows: readonly (readonly Example[])[],
  settings: TrainSettings,
  hooks: TrainHooks = {},
): Promise<TrainOutcome> {
  const resumed = 'optimiser' in start ? start : null;
  graph.loadAdapter('optimiser' in start ? start.adapter : start);
  if (resumed) graph.loadOptimiser(resumed.optimiser);
  const { microBatch } = graph.layout;
  const batches = trainingBatches(rows, { ...graph.layout.shape, microBatch }, settings.seed);
  for (let step = 0; step < (resumed?.tally.steps ?? 0); step += 1) batches.next();
  const losses = [...(resumed?.tally.losses ?? [])];
  const counts = { targetTokens: 0, tokens: 0, examples: 0, busyMs: 0, ...resumed?.tally };
  const pending: Promise<void>[] = [];
  const settled = () => Promise.all(pending.splice(0));
  const tokensPerSecond = () => (counts.busyMs > 0 ? (1000 * counts.tokens) / counts.busyMs : 0);
  let lastDone = 0;
  let lastSnapshot = performance.now();
  let fastest = Number.POSITIVE_INFINITY;

  const report = (
    { step, batch, began, wasMeasured }: { step: number; batch: readonly Batch[]; began: number; wasMeasured: boolean },
    { loss, gradientNorm }: StepOutcome,
  ) => {
    // Steps overlap by one: a step's time begins when it was queued or when the one before it was done.
    const now = performance.now();
    const milliseconds = now - Math.max(began, lastDone);
    lastDone = now;
    // Measured steps take longer than others, and set the division themselves; whatever else the machine does can only
    // make a step longer, so the fastest so far tells best what one takes.
    if (wasMeasured) {
      fastest = Math.min(fastest, milliseconds);
      graph.splitFor(fastest);
    }
    losses.push(loss);
    counts.targetTokens += sumOf(batch, ({ targetTokens }) => targetTokens);
    counts.tokens += sumOf(batch, ({ tokens }) => tokens);
    counts.examples += sumOf(batch, ({ examples }) => examples);
    counts.busyMs += milliseconds;
    const { targetTokens } = counts;
    hooks.onStep?.({
      step,
      steps: settings.steps,
      loss,
      gradientNorm,
      targetTokens,
      tokensPerSecond: tokensPerSecond(),
    });
  };
  const tally = (): TrainTally => ({ ...counts, steps: losses.length, losses: [...losses] });
  const snapshot = async (adapter: LoraAdapter): Promise<TrainSnapshot> => {
    const matrices = await graph.readFactors('params');
    return { adapter: { ...adapter, matrices }, optimiser: await graph.readOptimiser(), tally: tally() };
  };

  try {
    const first = losses.length + 1;
    for (let step = first; step <= settings.steps && !(step > first && hooks.finishEarly?.()); step += 1) {
      hooks.signal?.throwIfAborted();
      await hooks.whenRunning?.();
      hooks.signal?.throwIfAborted();
      const { value: batch } = batches.next();
      const wasMeasured = graph.isMeasured;
      const began = performance.now();
      const running = graph.run(batch, {
        learningRate: learningRateAt({ ...settings }, step),
        weightDecay: settings.weightDecay,
        maxGradNorm: settings.maxGradNorm,
        step,
        dropoutSeed: integerSeed(settings.seed, 'dropout', String(step)),
      });
      const done = running.then((outcome) => report({ step, batch, began, wasMeasured }, outcome));
      // A failure is met where the step is awaited below; until then it must not count as unhandled.
      done.catch(() => undefined);
      pending.push(done);
      // Steps that are measured are awaited alone.
      while (pending.length > (wasMeasured ? 1 : 0)) await pending.shift();
      if (hooks.onSnapshot && performance.now() - lastSnapshot >= (hooks.snapshotMs ?? 0)) {
        await settled();
        await hooks.onSnapshot(await snapshot('optimiser' in start ? start.adapter : start));
        lastSnapshot = performance.now();
        lastDone = lastSnapshot;
      }
    }
    await settled();
  } finally {
    // However training ends, nothing of it is under way afterwards.
    await Promise.allSettled(pending);
  }
  return {
    factors: await graph.readFactors('params'),
    losses,
    steps: losses.length,
    targetTokens: counts.targetTokens,
    examples: counts.examples,
    tokensPerSecond: tokensPerSecond(),
    tally: tally(),
  };
}
