// The GPU's side of a training: the model on it, the fastest way to run a step that fits, and a new device after a loss.
import type { LoraAdapter, LoraFactors } from '@weft/formats';
import {
  type AdaptedMatrix,
  type BaseModel,
  createFittingGraph,
  type Example,
  evaluateLoss,
  GpuModel,
  type HeldOutLoss,
  type MemoryPlan,
  type Optimiser,
  type StepGraph,
  type StepShape,
  type Trainable,
} from '@weft/trainer';
import type { Gpu } from '@weft/wgsl-kernels';
import { CommandError, formatBytes, type Io } from '../../command.ts';
import type { WeightOptions } from '../../options.ts';

export const uploadModel = (gpu: Gpu, model: BaseModel, { weights }: WeightOptions, io: Io): Promise<GpuModel> =>
  GpuModel.upload(gpu, model, {
    type: weights,
    signal: io.signal,
    onProgress: (done, total) => io.status(`loading the model ${done}/${total}`),
  });

export interface StepRequest {
  /** Bytes. */
  readonly budget: number;
  readonly microBatch?: number;
  readonly checkpoint?: boolean;
  readonly trainable: Trainable;
  readonly optimiser: Optimiser;
  readonly dropout: number;
  readonly sides: readonly (readonly LoraFactors[])[];
}

/** Throws CommandError 'no-room' saying what the smallest way would need. */
export async function fittingGraph(
  model: GpuModel,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  request: StepRequest,
  io: Io,
): Promise<{ graph: StepGraph; plan: MemoryPlan }> {
  const found = await createFittingGraph(model, matrices, shape, {
    ...request,
    onCompile: (done, total) => io.status(`compiling kernels ${done}/${total}`),
  });
  if ('plan' in found) return { graph: found.made, plan: found.plan };
  const { smallest, refusal } = found;
  const advice = 'Lower --batch, --seq or --rank, or keep the weights smaller with --weights q8 or q4.';
  const needs = smallest === null ? 'A step cannot be planned' : `A step takes ${formatBytes(smallest)} at least`;
  const why = refusal ? 'this GPU refuses it' : `--budget is ${formatBytes(request.budget)}`;
  throw new CommandError('no-room', `${needs}, and ${why}. ${advice}`, { cause: refusal ?? undefined });
}

/** In words: 3 of 8 rows at a time, activations computed again. */
export const describeWay = ({ microBatch, checkpoint, total }: MemoryPlan, { batch }: StepShape): string =>
  `A step takes ${formatBytes(total)} of GPU memory: ${
    microBatch === batch ? `all ${batch} rows at once` : `${microBatch} of ${batch} rows at a time`
  }, activations ${checkpoint ? 'computed again in the backward pass' : 'kept'}.`;

export interface TrainingJob extends WeightOptions {
  readonly model: BaseModel;
  readonly matrices: readonly AdaptedMatrix[];
  readonly shape: StepShape;
  readonly request: StepRequest;
}

/** What the present step graph is, and how it came to be. */
export interface Made {
  readonly graph: StepGraph;
  readonly plan: MemoryPlan;
}

export class TrainingGpu {
  readonly #job: TrainingJob;
  readonly #reopen: () => Promise<Gpu>;
  readonly #io: Io;
  #model: GpuModel;
  #made: Made | null = null;

  private constructor(job: TrainingJob, model: GpuModel, reopen: () => Promise<Gpu>, io: Io) {
    this.#job = job;
    this.#model = model;
    this.#reopen = reopen;
    this.#io = io;
  }

  static async open(job: TrainingJob, gpu: Gpu, reopen: () => Promise<Gpu>, io: Io): Promise<TrainingGpu> {
    return new TrainingGpu(job, await uploadModel(gpu, job.model, job, io), reopen, io);
  }

  get gpu(): Gpu {
    return this.#model.gpu;
  }

  /** Throws CommandError 'internal' before {@link makeGraph}. */
  get made(): Made {
    if (this.#made) return this.#made;
    throw new CommandError('internal', 'There is no step graph yet.');
  }

  /** A step graph; after a loss on a new device, and computed as before, so that the losses stay the same. */
  async makeGraph(afterLoss: boolean): Promise<StepGraph> {
    const { model, matrices, shape, request } = this.#job;
    if (afterLoss) this.#model = await uploadModel(await this.#reopen(), model, this.#job, this.#io);
    const { microBatch, checkpoint } = this.#made?.plan ?? request;
    const way = {
      ...(microBatch === undefined ? {} : { microBatch }),
      ...(checkpoint === undefined ? {} : { checkpoint }),
    };
    const made = await fittingGraph(this.#model, matrices, shape, { ...request, ...way }, this.#io);
    const isPlain = made.plan.microBatch === shape.batch && !made.plan.checkpoint && request.budget === Infinity;
    if (!this.#made && !isPlain) this.#io.note(describeWay(made.plan, shape));
    this.#made = made;
    return made.graph;
  }

  /** Loss of an adapter, with the frozen ones beside it, on rows that are not trained on. */
  heldOutLoss(adapter: LoraAdapter, examples: readonly Example[], batchSize: number): Promise<HeldOutLoss> {
    const { sides } = this.#job.request;
    this.#io.status(`evaluating ${examples.length} held-out rows`);
    return evaluateLoss(this.#model, adapter, examples, { sides, batchSize, signal: this.#io.signal });
  }
}
