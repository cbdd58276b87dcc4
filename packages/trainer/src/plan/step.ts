// One training step as recorded plans: forward, loss and backward for a micro-batch, then gradient norm and optimiser. Made
// once for a shape and a spec, replayed for every batch; a batch changes the content of a few small tensors and nothing
// else. A step of one micro-batch is one plan.
import type { LoraAdapter, LoraFactors } from '@weft/formats';
import {
  type Arena,
  chooseVariants,
  compileCalls,
  type KernelCall,
  type MeasuredPeaks,
  type Plan,
  type PlanProfile,
  PlanRecorder,
  profilePlans,
  ReadbackRing,
  readTensor,
  ropeTables,
  type TensorRef,
  type TypedArray,
} from '@weft/wgsl-kernels';
import type { Batch } from '../data/batches.ts';
import { TrainerError } from '../errors.ts';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { hyperOf, MOMENTS, type Moment, momentsOf, type StepHyper } from '../optim/optimiser.ts';
import type { FactorKind } from './factors.ts';
import { type GpuModel, slabLimit } from './gpu-model.ts';
import {
  planStep,
  READBACK_DEPTH,
  REPORT_ELEMENTS,
  REPORT_NORM_AT,
  type StepLayout,
  type StepOptions,
  type StepShape,
} from './layout.ts';

/** What one step reports when it is done. */
export interface StepOutcome {
  /** Mean loss of the batch before its update, nats per labelled target. */
  readonly loss: number;
  /** Norm of the gradient before clipping. */
  readonly gradientNorm: number;
}

/** What the optimiser keeps, in the place of the factors it belongs to: as many moments as it has. */
export type OptimiserState = ReadonlyMap<Moment, ReadonlyMap<string, LoraFactors>>;

/** What a step takes beside its batch. */
export interface StepInput extends StepHyper {
  /** Seeds the dropout masks of this step; unused without dropout. */
  readonly dropoutSeed?: number;
}

/** Kernel calls of the plans a step is recorded as; the first also clears what adds up. */
export function stepParts({ micro, update, microBatch, shape }: StepLayout) {
  return microBatch === shape.batch ? [[...micro, ...update]] : [[], micro, update];
}

export class StepGraph {
  readonly layout: StepLayout;
  readonly matrices: readonly AdaptedMatrix[];
  readonly #model: GpuModel;
  readonly #arena: Arena;
  readonly #plans: readonly Plan[];
  readonly #ring: ReadbackRing;
  /** The measured step that is under way, if one is. */
  #measuring: Promise<StepOutcome> | null = null;

  private constructor(
    model: GpuModel,
    layout: StepLayout,
    matrices: readonly AdaptedMatrix[],
    { arena, plans, ring }: { arena: Arena; plans: readonly Plan[]; ring: ReadbackRing },
  ) {
    this.#model = model;
    this.layout = layout;
    this.matrices = matrices;
    this.#arena = arena;
    this.#plans = plans;
    this.#ring = ring;
  }

  /**
   * Allocates, compiles at once what is not compiled yet, and records. Throws GpuError 'out-of-memory', 'shape' or
   * 'shader', TrainerError 'bad-settings'.
   */
  static async create(
    model: GpuModel,
    matrices: readonly AdaptedMatrix[],
    shape: StepShape,
    options: StepOptions & { onCompile?: (done: number, total: number) => void },
  ): Promise<StepGraph> {
    const { gpu, config } = model;
    const { microBatch = shape.batch } = options;
    if (!Number.isInteger(shape.batch / microBatch)) {
      throw new TrainerError(
        'bad-settings',
        `A batch of ${shape.batch} rows cannot be cut into parts of ${microBatch}.`,
      );
    }
    const limit = Math.min(options.slabLimit ?? Number.POSITIVE_INFINITY, slabLimit(gpu));
    const layout = planStep(config, model, matrices, shape, { ...options, slabLimit: limit });
    const arena = await layout.plan.allocate(gpu);
    const plans: Plan[] = [];
    try {
      const parts: KernelCall[][] = [];
      for (const calls of stepParts(layout)) parts.push(await chooseVariants(gpu, arena.bind(calls)));
      await compileCalls(gpu, parts.flat(), options.onCompile);
      for (const [i, calls] of parts.entries()) {
        const recorder = new PlanRecorder(gpu);
        if (i === 0) for (const ref of layout.cleared) recorder.clear(arena.get(ref));
        recorder.call(...calls);
        plans.push(await recorder.finish());
      }
      const { cos, sin } = ropeTables(shape.sequence, config.headSize, {
        theta: config.ropeTheta,
        scaling: config.ropeScaling,
      });
      arena.write(arena.get(layout.tensors.cos), cos);
      arena.write(arena.get(layout.tensors.sin), sin);
      const ring = new ReadbackRing(gpu, 4 * REPORT_ELEMENTS, READBACK_DEPTH);
      const graph = new StepGraph(model, layout, matrices, { arena, plans, ring });
      for (const each of [layout.factors, ...layout.sides]) graph.#write(each.elementContents());
      for (const [i, side] of (options.sides ?? []).entries()) graph.loadSide(i, side);
      return graph;
    } catch (error) {
      for (const plan of plans) plan.destroy();
      arena.destroy();
      throw error;
    }
  }

  /** Dispatches of one step. */
  get dispatches(): number {
    const microBatches = this.layout.shape.batch / this.layout.microBatch;
    return this.layout.micro.length * microBatches + this.layout.update.length;
  }

  #write(contents: ReadonlyMap<TensorRef, TypedArray>): void {
    for (const [ref, content] of contents) this.#arena.write(this.#arena.get(ref), content);
  }

  /** Puts a frozen side adapter's factors in place. Throws TrainerError 'rank-mismatch', 'bad-settings'. */
  loadSide(index: number, side: readonly (AdaptedMatrix | LoraFactors)[]): void {
    const factors = new Map<string, LoraFactors>();
    for (const matrix of side) {
      if (!('a' in matrix))
        throw new TrainerError('bad-settings', `The frozen side adapter has no values for ${matrix.module}.`);
      factors.set(matrix.module, matrix);
    }
    const layout = this.layout.sides[index];
    if (layout) this.#write(layout.gather('params', factors));
  }

  /** Puts the adapter's factors in place and forgets the optimiser's state. Throws TrainerError 'rank-mismatch'. */
  loadAdapter(adapter: LoraAdapter): void {
    const { factors } = this.layout;
    this.#write(factors.gather('params', adapter.matrices));
    if (factors.trained.length === 0) return;
    const { gpu } = this.#model;
    const encoder = gpu.device.createCommandEncoder();
    for (const kind of [...MOMENTS, 'grads'] as const) {
      for (const ref of factors.tensors(kind)) {
        const tensor = this.#arena.get(ref);
        encoder.clearBuffer(tensor.buffer, tensor.offset, tensor.bytes);
      }
    }
    gpu.submit([encoder.finish()]);
  }

  /** Goes on with an optimiser's state, after {@link loadAdapter}. Throws TrainerError 'rank-mismatch' or 'bad-snapshot'. */
  loadOptimiser(state: OptimiserState): void {
    const { optimiser, factors } = this.layout;
    const own = momentsOf(optimiser);
    if ([...state.keys()].sort().join() !== own.join()) {
      throw new TrainerError(
        'bad-snapshot',
        `The snapshot is of another optimiser: it holds ${state.size} moments, ${optimiser.name} keeps ${own.length}. Go on with the one it was trained by.`,
      );
    }
    for (const [moment, values] of state) this.#write(factors.gather(moment, values));
  }

  /** Submits of one step, and of its results' way back. */
  get submits(): number {
    return this.#runs().reduce((sum, { plan, times }) => sum + times * plan.submits, 1);
  }

  /** Milliseconds this thread has spent so far on encoding and submitting. */
  get encodeMilliseconds(): number {
    return this.#plans.reduce((sum, plan) => sum + plan.encodeMilliseconds, 0);
  }

  /**
   * Whether steps are divided by measured times. The first two are measured, and are slower for it; from then on a step
   * creates nothing, and steps may overlap.
   */
  get isMeasured(): boolean {
    return this.#plans.every((plan) => plan.isMeasured);
  }

  /** Divides a step that takes `milliseconds` into submits of about `target`. */
  splitFor(milliseconds: number, target?: number): void {
    const microBatches = this.layout.shape.batch / this.layout.microBatch;
    const main = this.#plans.length === 1 ? this.#plans[0] : this.#plans[1];
    main?.splitFor(milliseconds / microBatches, target);
  }

  /** The plans, and how often each runs in a step. */
  #runs(): { plan: Plan; times: number }[] {
    const microBatches = this.layout.shape.batch / this.layout.microBatch;
    return this.#plans.map((plan, i) => ({ plan, times: i === 1 ? microBatches : 1 }));
  }

  /** Where a step's time goes. What the graph holds is of no use afterwards. Throws GpuError 'device-lost'. */
  profile(peaks: MeasuredPeaks): Promise<PlanProfile> {
    return profilePlans(this.#model.gpu, this.#runs(), { peaks });
  }

  /** Resolves when another {@link run} may begin without piling up. */
  whenFree(): Promise<void> {
    return this.#ring.whenFree();
  }

  #load(batch: Batch, normaliser: number, seed: Uint32Array): void {
    const { tensors } = this.layout;
    this.#write(
      new Map<TensorRef, TypedArray>([
        [tensors.ids, batch.ids],
        [tensors.targets, batch.targets],
        [tensors.positions, batch.positions],
        [tensors.querySpans, batch.querySpans],
        [tensors.normaliser, Float32Array.of(normaliser)],
        ...(tensors.keySpans ? [[tensors.keySpans, batch.keySpans] as const] : []),
        ...(tensors.dropoutSeed ? [[tensors.dropoutSeed, seed] as const] : []),
      ]),
    );
  }

  /** Runs a step on the micro-batches of a batch. Resolves when its result is back. Throws TrainerError 'non-finite'. */
  async run(batches: readonly Batch[], input?: StepInput): Promise<StepOutcome> {
    // Nothing else may run while a step is measured.
    while (this.#measuring !== null) await this.#measuring.catch(() => undefined);
    if (this.isMeasured) return await this.#run(batches, input);
    this.#measuring = this.#run(batches, input);
    try {
      return await this.#measuring;
    } finally {
      this.#measuring = null;
    }
  }

  async #run(batches: readonly Batch[], input?: StepInput): Promise<StepOutcome> {
    const { shape, microBatch, tensors, factors } = this.layout;
    if (batches.length !== shape.batch / microBatch) {
      throw new TrainerError(
        'bad-settings',
        `${batches.length} micro-batches were given to a step of ${shape.batch / microBatch}.`,
      );
    }
    const targets = Math.max(
      1,
      batches.reduce((sum, { targetTokens }) => sum + targetTokens, 0),
    );
    if (tensors.hyper && input) this.#write(new Map([[tensors.hyper, hyperOf(this.layout.optimiser, input)]]));
    const [first, micro, update] = this.#plans;
    const order = [
      ...(micro ? [{ plan: first, batch: null }] : []),
      ...batches.map((batch) => ({ plan: micro ?? first, batch })),
      { plan: update, batch: null },
    ];
    for (const { plan, batch } of order) {
      if (batch) this.#load(batch, 1 / targets, Uint32Array.of(input?.dropoutSeed ?? 0, batches.indexOf(batch)));
      // Waiting, even for nothing, would let the next step's batch in between.
      if (plan?.isMeasured) plan.run();
      else if (plan) await plan.runMeasured();
    }
    const report = await this.#ring.push(this.#arena.get(tensors.report));
    const loss = (report[0] ?? Number.NaN) / targets;
    if (!Number.isFinite(loss) || (factors.trained.length > 0 && report[REPORT_NORM_AT + 1] !== 0)) {
      throw new TrainerError(
        'non-finite',
        'The loss or a gradient is not a finite number; nothing was updated. Lower the learning rate.',
      );
    }
    return { loss, gradientNorm: report[REPORT_NORM_AT] ?? 0 };
  }

  /** The factors as they stand, their gradients after the last run, or their moments; zeros where a factor is frozen. */
  async readFactors(kind: FactorKind): Promise<Map<string, LoraFactors>> {
    const { factors } = this.layout;
    const contents = new Map<TensorRef, Float32Array>();
    for (const ref of factors.tensors(kind)) contents.set(ref, await readTensor(this.#model.gpu, this.#arena.get(ref)));
    return factors.scatter(kind, contents);
  }

  /** What the optimiser keeps, as it stands. */
  async readOptimiser(): Promise<OptimiserState> {
    const state = new Map<Moment, ReadonlyMap<string, LoraFactors>>();
    for (const moment of momentsOf(this.layout.optimiser)) state.set(moment, await this.readFactors(moment));
    return state;
  }

  /** Cross-entropy of every row of the last micro-batch [N], nats; 0 where nothing is labelled. */
  readLossRows(): Promise<Float32Array> {
    return readTensor(this.#model.gpu, this.#arena.get(this.layout.tensors.lossRows));
  }

  destroy(): void {
    for (const plan of this.#plans) plan.destroy();
    this.#ring.destroy();
    this.#arena.destroy();
  }
}
