// A trainer without a GPU: takes its time, then hands back the start factors moved at random by no more than the granted
// steps could have moved them. Valid by every check a server makes, without meaning as training; the same for the same seed.
import { parsePeftTensorName, readSafetensors } from '@weft/formats';
import type {
  DeviceReport,
  EvaluationResult,
  OwnLimits,
  RankProposal,
  RunView,
  TrainingSettings,
} from '@weft/protocol';
import type { ModelFiles, Trainer, TrainingControl, TrainingJob, TrainingResult } from '@weft/volunteer';
import { CommandError } from '../command.ts';
import type { Misbehaviour } from './plan.ts';

export interface LoadTrainerOptions {
  /** Seeds factors and think times. */
  readonly seed: number;
  /** Seconds of training, from the shortest to the longest. */
  readonly think: readonly [number, number];
  /** The rank to propose, of the run's. */
  readonly rankOf: (ranks: readonly number[]) => number | undefined;
  readonly misbehaviour: Misbehaviour | null;
}

const DEVICE: DeviceReport = {
  adapter: { vendor: 'none', architecture: '', device: '', description: 'load tool, no GPU', software: true },
  limits: { maxBufferSize: 0, maxStorageBufferBindingSize: 0 },
  features: [],
  deviceMemoryGiB: null,
};

/** Reports of progress in one training: a heartbeat always has news, and sessions stay cheap. */
const REPORTS = 4;

export class LoadTrainer implements Trainer {
  readonly #options: LoadTrainerOptions;
  #jobs = 0;

  constructor(options: LoadTrainerOptions) {
    this.#options = options;
  }

  device(): DeviceReport {
    return DEVICE;
  }

  async proposeRank(run: RunView, _model: ModelFiles, ownLimits: OwnLimits): Promise<RankProposal> {
    const { ranks } = run.settings;
    const rank = this.#options.rankOf(ranks);
    if (rank === undefined || !ranks.includes(rank)) {
      throw new CommandError('no-rank-fits', `The run has no rank ${rank}; it has ${ranks.join(', ')}.`);
    }
    const verdicts = [{ rank, fits: true, memoryBytes: 0, uploadBytes: 0, reason: 'Nothing is computed here.' }];
    return { rank, verdicts, ownLimits, stepSeconds: null };
  }

  async train(_model: ModelFiles, job: TrainingJob, control: TrainingControl): Promise<TrainingResult> {
    const { seed, think, misbehaviour } = this.#options;
    const { steps, batchSize, sequenceLength } = job.training;
    const random = seededRandom(`${seed}/${this.#jobs++}/${job.training.seed}`);
    const [shortest, longest] = think;
    const seconds = shortest + (longest - shortest) * (0.5 + 0.5 * random());
    const tokensPerStep = Math.max(1, Math.floor((batchSize * sequenceLength) / 4));
    const lossAt = (step: number) => 4 - step / steps;
    let done = 0;
    for (let part = 1; part <= REPORTS && done < steps; part++) {
      await control.whenRunning();
      await pause((seconds * 1000) / REPORTS, control);
      if (done > 0 && control.finishEarly()) break;
      done = Math.max(1, Math.round((steps * part) / REPORTS));
      const tokensPerSecond = (done * tokensPerStep) / Math.max(0.001, (seconds * part) / REPORTS);
      const report = { step: done, steps, loss: lossAt(done), targetTokens: done * tokensPerStep, tokensPerSecond };
      control.onStep(report);
    }
    const update = moved(job, random);
    if (misbehaviour === 'nan') spoil(update, () => Number.NaN);
    if (misbehaviour === 'norm') spoil(update, () => 1e6);
    return {
      update,
      rank: job.grant.rank,
      steps: done,
      targetTokens: done * tokensPerStep,
      examples: done * batchSize,
      firstLoss: lossAt(1),
      lastLoss: lossAt(done),
      tokensPerSecond: (done * tokensPerStep) / Math.max(0.001, seconds),
      truncatedRows: 0,
    };
  }

  async evaluate(): Promise<EvaluationResult[]> {
    throw new CommandError('no-gpu', 'The load tool measures nothing. Evaluate with weft join --evaluate.');
  }

  close(): void {
    // Nothing is held.
  }
}

function pause(ms: number, { signal }: TrainingControl): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** How far one element is moved at most: well within what the server allows (its `ingest/reach.ts`). */
function amplitudeOf({ optimiser, learningRate, maxGradNorm, steps }: TrainingSettings, elements: number): number {
  if (optimiser === 'adamw') return 0.1 * learningRate * steps;
  return (0.5 * learningRate * steps * maxGradNorm) / Math.sqrt(Math.max(1, elements));
}

/** A copy of the start with every trained float32 moved. */
function moved({ start, training }: TrainingJob, random: () => number): Uint8Array {
  const update = start.slice();
  for (const [name, { bytes }] of readSafetensors(update, 'the start weights').tensors) {
    if (training.trainable === 'B' && parsePeftTensorName(name)?.factor === 'A') continue;
    const elements = bytes.byteLength / 4;
    const size = amplitudeOf(training, elements);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < elements; i++) view.setFloat32(4 * i, view.getFloat32(4 * i, true) + size * random(), true);
  }
  return update;
}

/** Replaces the first element of every tensor. */
function spoil(update: Uint8Array, value: () => number): void {
  for (const { bytes } of readSafetensors(update, 'the update').tensors.values()) {
    new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).setFloat32(0, value(), true);
  }
}

/** Numbers in [−1, 1): a linear congruential generator, because an upload has hundreds of thousands of elements. */
export function seededRandom(seed: string): () => number {
  let state = 0x811c9dc5;
  for (let i = 0; i < seed.length; i++) state = Math.imul(state ^ seed.charCodeAt(i), 0x01000193);
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return state / 2 ** 31;
  };
}
