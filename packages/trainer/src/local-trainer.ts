// The trainer as one volunteer uses it: device report, rank proposal, training jobs and evaluation jobs on one GPU. Keeps
// the model on the GPU and the last plan between jobs. Knows no network: a session hands it files and settings.
import {
  type ByteSource,
  type LoraAdapter,
  type ModelConfig,
  type Projection,
  parseDataLines,
  type SparseSpec,
  writeFactors,
} from '@weft/formats';
import { type Gpu, GpuError, type WeightType } from '@weft/wgsl-kernels';
import { oneExamplePerRow, sequenceFor } from './data/batches.ts';
import { type Example, encodeRows } from './data/examples.ts';
import { TrainerError } from './errors.ts';
import { Evaluator } from './evaluate.ts';
import {
  type AdaptedMatrix,
  type AdapterSpec,
  adaptedMatrices,
  adapterFromBlob,
  sideFromBlob,
} from './lora/adapter.ts';
import { type Pruning, pruned, tailOf } from './lora/pruning.ts';
import { sparseFromBlob, sparseMatrices, writeSparseFactors } from './lora/sparse.ts';
import { loadModel } from './model/base-model.ts';
import { type OptimiserName, optimiserOf } from './optim/optimiser.ts';
import type { ScheduleName } from './optim/schedule.ts';
import type { Trainable } from './plan/factors.ts';
import { createFittingGraph } from './plan/fit.ts';
import { GpuModel } from './plan/gpu-model.ts';
import type { StepGraph } from './plan/step.ts';
import { chooseRank, NO_LIMITS, type OwnLimits, type RankVerdict, rankVerdicts } from './rank.ts';
import { trainThroughLoss } from './train-through-loss.ts';

type ModelFiles = ReadonlyMap<string, Uint8Array | ByteSource>;

export interface TrainerEnvironment {
  /** navigator.deviceMemory, or null where nothing tells. */
  readonly deviceMemoryGiB: number | null;
  /** Opens another device after a loss. Without it a loss ends the training. */
  reopenGpu?(): Promise<Gpu>;
}

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
    readonly baseDtype: WeightType;
    /** AdamW unless said. */
    readonly optimiser?: OptimiserName;
    readonly momentum?: number;
    /** γ and λ of rank self-pruning; none where null or absent. */
    readonly pruneGamma?: number | null;
    readonly pruneLambda?: number | null;
    /** Rounds at the beginning that train sparse updates, and the share of the elements of these. */
    readonly sparseRounds?: number;
    readonly sparseDensity?: number;
  };
  /** By rank: rank of the frozen side adapter that comes with it at most. */
  readonly sideRanks?: readonly number[];
  /** Rounds committed so far. */
  readonly version?: number;
}

interface TrainingSettings {
  readonly steps: number;
  readonly batchSize: number;
  readonly sequenceLength: number;
  readonly baseDtype: WeightType;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
  /** AdamW unless said. */
  readonly optimiser?: OptimiserName;
  /** Of SGD; none unless said. */
  readonly momentum?: number;
  /** HetLoRA's rank self-pruning; none where null or absent. */
  readonly pruning?: Pruning | null;
  /** Factors that are trained; both unless said. */
  readonly trainable?: Trainable;
  /** Train a sparse update instead of factors; null or left out for factors. */
  readonly sparse?: SparseSpec | null;
  readonly seed: string;
}

interface TrainingJob {
  readonly grant: AdapterSpec;
  readonly training: TrainingSettings;
  /** Start weights: safetensors with PEFT names, or elements of a sparse update. */
  readonly start: Uint8Array;
  /** A frozen adapter to train beside, at scale 1: safetensors with PEFT names; null or absent where there is none. */
  readonly side?: Uint8Array | null;
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
  /** Told how many of the kernels that the first step needs are compiled. */
  onCompile?(done: number, total: number): void;
  onStep(report: StepReport): void;
}

interface TrainingResult {
  /** Trained factors, or elements of a sparse update: safetensors named as the start, F32. */
  readonly update: Uint8Array;
  /** Rank of these factors: the granted one, or what is left of it after pruning. */
  readonly rank: number;
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
  readonly baseDtype: WeightType;
}

interface EvaluationResult {
  task: string;
  loss: number;
  targetTokens: number;
  rows: number;
}

/** The matrices a job trains: factored at the granted ranks, or sparse. */
const matricesOf = (config: ModelConfig, { grant, training: { sparse } }: TrainingJob): AdaptedMatrix[] =>
  sparse ? sparseMatrices(config, { ...sparse, targets: grant.targets }) : adaptedMatrices(config, grant);

const startOf = (config: ModelConfig, { grant, training: { sparse }, start }: TrainingJob): LoraAdapter =>
  sparse ? sparseFromBlob(config, { ...sparse, targets: grant.targets }, start) : adapterFromBlob(config, grant, start);

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

export class LocalTrainer {
  readonly #environment: TrainerEnvironment;
  #gpu: Gpu;
  #limits: OwnLimits = NO_LIMITS;
  #model: { files: ModelFiles; gpuModel: GpuModel } | null = null;
  #graph: { key: string; graph: StepGraph } | null = null;

  constructor(gpu: Gpu, environment: TrainerEnvironment) {
    this.#gpu = gpu;
    this.#environment = environment;
  }

  device(): DeviceReport {
    const { adapter, limits, features } = this.#gpu;
    return {
      adapter: { ...adapter },
      limits: { maxBufferSize: limits.maxBufferSize, maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize },
      features: [...features].sort(),
      deviceMemoryGiB: this.#environment.deviceMemoryGiB,
    };
  }

  /** Throws TrainerError 'no-rank-fits', FormatError for a model that cannot be loaded, GpuError. */
  async proposeRank(run: RunShape, files: ModelFiles, ownLimits: OwnLimits): Promise<RankProposal> {
    const model = await this.#load(files, run.settings.baseDtype);
    const { ranks, alphaPerRank, targets, batchSize: batch, sequenceLength } = run.settings;
    const { sparseRounds = 0, sparseDensity } = run.settings;
    const density = (run.version ?? 0) < sparseRounds ? sparseDensity : undefined;
    this.#dropGraph();
    this.#limits = ownLimits;
    const sequence = Math.min(sequenceLength, model.config.maxPositions);
    const { sideRanks = [] } = run;
    const { pruneGamma = null, pruneLambda = null } = run.settings;
    const pruning = pruneGamma === null || pruneLambda === null ? null : { gamma: pruneGamma, lambda: pruneLambda };
    const method = { sideRanks, optimiser: optimiserOf(run.settings), pruning };
    const question = { ranks, alphaPerRank, targets, shape: { batch, sequence }, ...method };
    const sparse = density === undefined ? {} : { sparse: { density } };
    const verdicts = await rankVerdicts(model, { ...question, ...sparse }, ownLimits);
    return { rank: chooseRank(verdicts), verdicts, ownLimits, stepSeconds: null };
  }

  /** Throws TrainerError, FormatError naming a bad line, GpuError 'device-lost' or 'out-of-memory', or the signal's reason. */
  async train(files: ModelFiles, job: TrainingJob, control: TrainingControl): Promise<TrainingResult> {
    const { baseDtype } = job.training;
    const { config, model } = await this.#load(files, baseDtype);
    const start = startOf(config, job);
    const limit = Math.min(job.training.sequenceLength, config.maxPositions);
    const { examples, truncated } = encodeRows(parseDataLines(job.rows), model, limit);
    const makeGraph = async (afterLoss: boolean): Promise<StepGraph> => {
      if (afterLoss) await this.#reopen();
      return await this.#prepare(await this.#load(files, baseDtype), job, examples, limit, control);
    };
    const hooks = { ...control, ...(this.#environment.reopenGpu ? {} : { mostLosses: 0 }) };
    const outcome = await trainThroughLoss(makeGraph, start, oneExamplePerRow(examples), job.training, hooks);
    for (const { module, rank, a } of outcome.factors.values()) {
      const began = start.matrices.get(module);
      if (a.length !== began?.a.length || rank !== began.rank) {
        throw new TrainerError('rank-mismatch', `${module} was trained at rank ${rank}, which was not granted.`);
      }
    }
    const tail = job.training.sparse ? null : tailOf(job.training.pruning ?? null, job.grant.rank);
    const sent = tail && pruned(start.matrices, outcome.factors, tail.kept);
    const quarter = Math.max(1, Math.floor(outcome.losses.length / 4));
    return {
      update: job.training.sparse
        ? writeSparseFactors(outcome.factors.values())
        : writeFactors(sent?.factors ?? outcome.factors.values()),
      rank: tail && sent?.isPruned ? tail.kept : job.grant.rank,
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
    const model = await this.#load(files, job.baseDtype);
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

  async #load(files: ModelFiles, type: WeightType): Promise<GpuModel> {
    if (this.#model?.files === files && this.#model.gpuModel.type === type) return this.#model.gpuModel;
    this.#dropGraph();
    this.#model?.gpuModel.destroy();
    this.#model = null;
    const gpuModel = await GpuModel.upload(this.#gpu, await loadModel(files), { type });
    this.#model = { files, gpuModel };
    return gpuModel;
  }

  /** A new device in the place of the lost one. Throws GpuError 'device-lost' where none can be had. */
  async #reopen(): Promise<void> {
    this.#graph = null;
    this.#model = null;
    this.#gpu.destroy();
    try {
      this.#gpu = (await this.#environment.reopenGpu?.()) ?? this.#gpu;
    } catch (cause) {
      throw new GpuError('device-lost', 'The GPU was lost, and no other device can be opened.', { cause });
    }
  }

  async #prepare(
    model: GpuModel,
    job: TrainingJob,
    examples: readonly Example[],
    limit: number,
    { onCompile }: Pick<TrainingControl, 'onCompile'>,
  ): Promise<StepGraph> {
    const { grant, training, side } = job;
    const shape = { batch: training.batchSize, sequence: sequenceFor(examples, limit) };
    const budget = this.#limits.maxMemoryBytes ?? Number.POSITIVE_INFINITY;
    const { trainable = 'both', sparse = null } = training;
    const optimiser = optimiserOf(training);
    const tail = sparse ? null : tailOf(training.pruning ?? null, grant.rank);
    const frozen = side ? sideFromBlob(model.config, side) : [];
    const sides = frozen.length > 0 ? [frozen] : [];
    const key = JSON.stringify([
      // Every rank trains the same sparse update.
      sparse ? grant.targets : grant,
      sparse,
      shape,
      budget,
      trainable,
      optimiser,
      frozen.map(({ module, rank }) => [module, rank]),
    ]);
    if (this.#graph?.key !== key) {
      this.#dropGraph();
      const found = await createFittingGraph(model, matricesOf(model.config, job), shape, {
        budget,
        trainable,
        sides,
        optimiser,
        ...(tail ? { tail } : {}),
        ...(onCompile ? { onCompile } : {}),
      });
      if (!('made' in found)) {
        throw (
          found.refusal ??
          new TrainerError(
            'no-rank-fits',
            `${sparse ? 'A sparse update' : `Rank ${grant.rank}`} takes ${found.smallest} bytes of GPU memory here; your limit is ${budget}. Raise it, or choose a smaller rank.`,
          )
        );
      }
      this.#graph = { key, graph: found.made };
    }
    for (const [i, factors] of sides.entries()) this.#graph.graph.loadSide(i, factors);
    return this.#graph.graph;
  }

  #dropGraph(): void {
    this.#graph?.graph.destroy();
    this.#graph = null;
  }
}

/** {@link LocalTrainer} as the `Trainer` of a volunteer's session. */
export const createLocalTrainer = (gpu: Gpu, environment: TrainerEnvironment): LocalTrainer =>
  new LocalTrainer(gpu, environment);
