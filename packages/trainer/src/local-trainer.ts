// The trainer as one volunteer uses it: device report, rank proposal, training jobs and evaluation jobs on one GPU. Keeps
// the model on the GPU and the last plan between jobs. Knows no network: a session hands it files and settings.
import { type Projection, parseDataLines, writeFactors } from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { sequenceFor } from './data/batches.ts';
import { type Example, encodeRows } from './data/examples.ts';
import { TrainerError } from './errors.ts';
import { Evaluator } from './evaluate.ts';
import { type AdapterSpec, adaptedMatrices, adapterFromBlob } from './lora/adapter.ts';
import { loadModel } from './model/base-model.ts';
import type { ScheduleName } from './optim/schedule.ts';
import { GpuModel } from './plan/gpu-model.ts';
import { StepGraph } from './plan/step.ts';
import { chooseRank, type OwnLimits, type RankVerdict, rankVerdicts } from './rank.ts';
import { train } from './train.ts';

type ModelFiles = ReadonlyMap<string, Uint8Array>;

interface DeviceReport {
  adapter: { vendor: string; architecture: string; device: string; description: string; software: boolean };
  limits: { maxBufferSize: number; maxStorageBufferBindingSize: number };
  features: string[];
  deviceMemoryGiB: number | null;
}

interface RankProposal {
  rank: number;
  verdicts: RankVerdict[];
  ownLimits: OwnLimits;
  stepSeconds: number | null;
}

/** The parts of a run's settings that decide what a step takes. */
interface RunShape {
  readonly settings: {
    readonly ranks: readonly number[];
    readonly alphaPerRank: number;
    readonly targets: readonly Projection[];
    readonly batchSize: number;
    readonly sequenceLength: number;
  };
}

interface TrainingSettings {
  readonly steps: number;
  readonly batchSize: number;
  readonly sequenceLength: number;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
  readonly seed: string;
}

interface TrainingJob {
  readonly grant: AdapterSpec;
  readonly training: TrainingSettings;
  /** Start weights: safetensors with PEFT names. */
  readonly start: Uint8Array;
  /** JSONL text. */
  readonly rows: string;
}

interface StepReport {
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly targetTokens: number;
  readonly tokensPerSecond: number;
}

interface TrainingControl {
  readonly signal: AbortSignal;
  whenRunning(): Promise<void>;
  finishEarly(): boolean;
  onStep(report: StepReport): void;
}

interface TrainingResult {
  /** Trained factors: safetensors with PEFT names, F32. */
  readonly update: Uint8Array;
  readonly steps: number;
  readonly targetTokens: number;
  readonly examples: number;
  readonly firstLoss: number;
  readonly lastLoss: number;
  readonly tokensPerSecond: number;
  readonly truncatedRows: number;
}

interface EvaluationJob {
  readonly grant: AdapterSpec;
  readonly sequenceLength: number;
}

interface EvaluationResult {
  task: string;
  loss: number;
  targetTokens: number;
  rows: number;
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

export class LocalTrainer {
  readonly #gpu: Gpu;
  readonly #deviceMemoryGiB: number | null;
  #model: { files: ModelFiles; gpuModel: GpuModel } | null = null;
  #graph: { key: string; graph: StepGraph } | null = null;

  /** @param environment `deviceMemoryGiB`: navigator.deviceMemory, or null where nothing tells */
  constructor(gpu: Gpu, environment: { deviceMemoryGiB: number | null }) {
    this.#gpu = gpu;
    this.#deviceMemoryGiB = environment.deviceMemoryGiB;
  }

  device(): DeviceReport {
    const { adapter, limits, features } = this.#gpu;
    return {
      adapter: { ...adapter },
      limits: { maxBufferSize: limits.maxBufferSize, maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize },
      features: [...features].sort(),
      deviceMemoryGiB: this.#deviceMemoryGiB,
    };
  }

  /** Throws TrainerError 'no-rank-fits', FormatError for a model that cannot be loaded, GpuError. */
  async proposeRank(run: RunShape, files: ModelFiles, ownLimits: OwnLimits): Promise<RankProposal> {
    const model = await this.#load(files);
    const { ranks, alphaPerRank, targets, batchSize: batch, sequenceLength } = run.settings;
    this.#dropGraph();
    const sequence = Math.min(sequenceLength, model.config.maxPositions);
    const verdicts = await rankVerdicts(model, { ranks, alphaPerRank, targets, shape: { batch, sequence } }, ownLimits);
    return { rank: chooseRank(verdicts), verdicts, ownLimits, stepSeconds: null };
  }

  /** Throws TrainerError, FormatError naming a bad line, GpuError 'device-lost' or 'out-of-memory', or the signal's reason. */
  async train(files: ModelFiles, job: TrainingJob, control: TrainingControl): Promise<TrainingResult> {
    const model = await this.#load(files);
    const start = adapterFromBlob(model.config, job.grant, job.start);
    const limit = Math.min(job.training.sequenceLength, model.config.maxPositions);
    const { examples, truncated } = encodeRows(parseDataLines(job.rows), model.model, limit);
    const graph = await this.#prepare(model, job, examples, limit);
    const outcome = await train(graph, start, examples, job.training, control);
    for (const { module, rank, a } of outcome.factors.values()) {
      if (a.length !== rank * (start.matrices.get(module)?.in ?? 0) || rank !== start.matrices.get(module)?.rank) {
        throw new TrainerError('rank-mismatch', `${module} was trained at rank ${rank}, which was not granted.`);
      }
    }
    const quarter = Math.max(1, Math.floor(outcome.losses.length / 4));
    return {
      update: writeFactors(outcome.factors.values()),
      steps: outcome.steps,
      targetTokens: outcome.targetTokens,
      examples: outcome.examples,
      firstLoss: mean(outcome.losses.slice(0, quarter)),
      lastLoss: mean(outcome.losses.slice(-quarter)),
      tokensPerSecond: outcome.tokensPerSecond,
      truncatedRows: truncated,
    };
  }

  /** Held-out loss of each task's rows (JSONL text by task), of the adapter or of the base model alone. */
  async evaluate(
    files: ModelFiles,
    job: EvaluationJob,
    adapter: Uint8Array | null,
    rows: ReadonlyMap<string, string>,
    signal: AbortSignal,
  ): Promise<EvaluationResult[]> {
    const model = await this.#load(files);
    this.#dropGraph();
    const limit = Math.min(job.sequenceLength, model.config.maxPositions);
    const tasks = [...rows].map(([task, text]) => ({
      task,
      ...encodeRows(parseDataLines(text, task), model.model, limit),
    }));
    const factors = adapter ? adapterFromBlob(model.config, job.grant, adapter) : null;
    const evaluator = await Evaluator.create(
      model,
      factors,
      tasks.flatMap(({ examples }) => examples),
    );
    try {
      const results: EvaluationResult[] = [];
      for (const { task, examples } of tasks) results.push({ task, ...(await evaluator.loss(examples, signal)) });
      return results;
    } finally {
      evaluator.destroy();
    }
  }

  close(): void {
    this.#dropGraph();
    this.#model?.gpuModel.destroy();
    this.#model = null;
    this.#gpu.destroy();
  }

  async #load(files: ModelFiles): Promise<GpuModel> {
    if (this.#model?.files === files) return this.#model.gpuModel;
    this.#dropGraph();
    this.#model?.gpuModel.destroy();
    this.#model = null;
    const gpuModel = await GpuModel.upload(this.#gpu, loadModel(files));
    this.#model = { files, gpuModel };
    return gpuModel;
  }

  async #prepare(
    model: GpuModel,
    { grant, training }: TrainingJob,
    examples: readonly Example[],
    limit: number,
  ): Promise<StepGraph> {
    const shape = { batch: training.batchSize, sequence: sequenceFor(examples, limit) };
    const key = JSON.stringify([grant, shape]);
    if (this.#graph?.key !== key) {
      this.#dropGraph();
      const graph = await StepGraph.create(model, adaptedMatrices(model.config, grant), shape, { training: true });
      this.#graph = { key, graph };
    }
    return this.#graph.graph;
  }

  #dropGraph(): void {
    this.#graph?.graph.destroy();
    this.#graph = null;
  }
}

/** {@link LocalTrainer} as the `Trainer` of a volunteer's session. */
export const createLocalTrainer = (gpu: Gpu, environment: { deviceMemoryGiB: number | null }): LocalTrainer =>
  new LocalTrainer(gpu, environment);
