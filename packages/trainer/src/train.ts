// Local training: a number of AdamW steps on shuffled rows, from start factors to trained ones.
import type { LoraAdapter, LoraFactors } from '@weft/formats';
import { type Batch, trainingBatches } from './data/batches.ts';
import type { Example } from './data/examples.ts';
import { learningRateAt, type ScheduleName } from './optim/schedule.ts';
import type { StepGraph, StepOutcome } from './plan/step.ts';

export interface TrainSettings {
  readonly steps: number;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  /** 0 turns clipping off. */
  readonly maxGradNorm: number;
  /** Seeds the order of rows. */
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
}

export interface TrainOutcome {
  readonly factors: ReadonlyMap<string, LoraFactors>;
  readonly losses: readonly number[];
  readonly steps: number;
  readonly targetTokens: number;
  readonly examples: number;
  readonly tokensPerSecond: number;
}

/** Submits longer than this are cut, so that the GPU stays free for the page between them. Milliseconds. */
const SUBMIT_MS = 150;

/**
 * Trains the graph from `start`. The result of a step is read while the next one runs. Rejects with TrainerError
 * 'non-finite', GpuError 'device-lost', or the signal's reason.
 */
export async function train(
  graph: StepGraph,
  start: LoraAdapter,
  examples: readonly Example[],
  settings: TrainSettings,
  hooks: TrainHooks = {},
): Promise<TrainOutcome> {
  graph.loadAdapter(start);
  const { batch: batchSize, sequence } = graph.layout.shape;
  const batches = trainingBatches(examples, batchSize, sequence, settings.seed);
  const losses: number[] = [];
  const pending: Promise<void>[] = [];
  let targetTokens = 0;
  let tokens = 0;
  let seenExamples = 0;
  let busyMs = 0;
  let lastDone = 0;
  let fastest = Number.POSITIVE_INFINITY;

  const report = (step: number, batch: Batch, began: number, { loss, gradientNorm }: StepOutcome) => {
    // Steps overlap by one: a step's time begins when it was queued or when the one before it was done.
    const now = performance.now();
    const milliseconds = now - Math.max(began, lastDone);
    lastDone = now;
    // The first step pays for the driver's own compiling, so the fastest so far tells best what a step takes.
    fastest = Math.min(fastest, milliseconds);
    graph.plan.splitFor(fastest, SUBMIT_MS);
    losses.push(loss);
    targetTokens += batch.targetTokens;
    tokens += batch.tokens;
    seenExamples += batch.examples;
    busyMs += milliseconds;
    const tokensPerSecond = (1000 * tokens) / busyMs;
    hooks.onStep?.({ step, steps: settings.steps, loss, gradientNorm, targetTokens, tokensPerSecond });
  };

  try {
    for (let step = 1; step <= settings.steps && !(step > 1 && hooks.finishEarly?.()); step += 1) {
      hooks.signal?.throwIfAborted();
      await hooks.whenRunning?.();
      hooks.signal?.throwIfAborted();
      const { value: batch } = batches.next();
      const began = performance.now();
      const running = graph.run(batch, {
        learningRate: learningRateAt({ ...settings }, step),
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weightDecay: settings.weightDecay,
        maxGradNorm: settings.maxGradNorm,
        step,
      });
      const done = running.then((outcome) => report(step, batch, began, outcome));
      // A failure is met where the step is awaited below; until then it must not count as unhandled.
      done.catch(() => undefined);
      pending.push(done);
      // The first step is awaited alone: it tells into how many submits one is cut.
      while (pending.length > (step === 1 ? 0 : 1)) await pending.shift();
    }
    await Promise.all(pending);
  } finally {
    // However training ends, nothing of it is under way afterwards.
    await Promise.allSettled(pending);
  }
  return {
    factors: await graph.readFactors('params'),
    losses,
    steps: losses.length,
    targetTokens,
    examples: seenExamples,
    tokensPerSecond: busyMs > 0 ? (1000 * tokens) / busyMs : 0,
  };
}
