// One training step as one recorded plan: forward, loss, backward, gradient norm, AdamW. Made once for a shape and a
// spec, replayed for every batch; a batch changes the content of four small tensors and nothing else.
import type { ModelConfig, LoraAdapter, LoraFactors } from '@weft/formats';
import {
  type AdamwHyper,
  type Arena,
  adamw,
  adamwHyper,
  gradientNorm,
  type KernelCall,
  type Plan,
  PlanRecorder,
  ReadbackRing,
  readTensor,
  ropeTables,
  subTensor,
  writeTensor,
} from '@weft/wgsl-kernels';
import type { Batch } from '../data/batches.ts';
import { TrainerError } from '../errors.ts';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { backwardCalls } from './backward.ts';
import { hiddenStates, lossCalls } from './forward.ts';
import { type GpuModel, slabLimit } from './gpu-model.ts';
import { type Layout, planLayout, READBACK_DEPTH, REPORT_ELEMENTS, REPORT_NORM_AT, type StepShape } from './layout.ts';
import type { Graph } from './linear.ts';

/** What one step reports when it is done. */
export interface StepOutcome {
  /** Mean loss of the batch before its update, nats per labelled target. */
  readonly loss: number;
  /** Norm of the gradient before clipping. */
  readonly gradientNorm: number;
}

/** All calls of a step whose layout is for training; forward and loss only otherwise. */
export function stepCalls(
  config: ModelConfig,
  graph: Graph,
  options: { update: boolean } = { update: true },
): KernelCall[] {
  const { forward, backward } = graph.layout;
  const calls = [...hiddenStates(graph, config), ...lossCalls(graph, config)];
  if (!backward || !forward.params) return calls;
  const t = graph.source.get.bind(graph.source);
  const grad = t(backward.grads);
  const norm = subTensor(t(forward.report), REPORT_NORM_AT, [2]);
  calls.push(
    ...backwardCalls(graph, config, backward),
    ...gradientNorm({ grads: grad, partials: t(backward.partials), out: norm }),
  );
  if (options.update) {
    calls.push(
      ...adamw({ param: t(forward.params), grad, m: t(backward.m), v: t(backward.v), hyper: t(backward.hyper), norm }),
    );
  }
  return calls;
}

export class StepGraph {
  readonly layout: Layout;
  readonly matrices: readonly AdaptedMatrix[];
  readonly plan: Plan;
  readonly #model: GpuModel;
  readonly #arena: Arena;
  readonly #ring: ReadbackRing;

  private constructor(
    model: GpuModel,
    layout: Layout,
    matrices: readonly AdaptedMatrix[],
    arena: Arena,
    plan: Plan,
    ring: ReadbackRing,
  ) {
    this.#model = model;
    this.layout = layout;
    this.matrices = matrices;
    this.#arena = arena;
    this.plan = plan;
    this.#ring = ring;
  }

  /**
   * Allocates and records. `training: false` gives forward and loss alone; `update: false` stops at the gradients.
   * Throws GpuError 'out-of-memory', 'shape' or 'shader'.
   */
  static async create(
    model: GpuModel,
    matrices: readonly AdaptedMatrix[],
    shape: StepShape,
    options: { training: boolean; update?: boolean; onCompile?: (done: number, total: number) => void },
  ): Promise<StepGraph> {
    const { gpu, config } = model;
    const layout = planLayout(config, matrices, shape, { training: options.training, slabLimit: slabLimit(gpu) });
    const arena = await layout.plan.allocate(gpu);
    try {
      const recorder = new PlanRecorder(gpu);
      const graph = { layout, source: arena, weight: (name: string) => model.weight(name) };
      recorder.call(...stepCalls(config, graph, { update: options.update ?? true }));
      const plan = await recorder.finish(options.onCompile);
      const { cos, sin } = ropeTables(shape.sequence, config.headSize, config.ropeTheta);
      arena.write(arena.get(layout.forward.cos), cos);
      arena.write(arena.get(layout.forward.sin), sin);
      return new StepGraph(
        model,
        layout,
        matrices,
        arena,
        plan,
        new ReadbackRing(gpu, 4 * REPORT_ELEMENTS, READBACK_DEPTH),
      );
    } catch (error) {
      arena.destroy();
      throw error;
    }
  }

  /** Puts the adapter's factors in place and forgets the optimiser's state. Throws TrainerError 'rank-mismatch'. */
  loadAdapter(adapter: LoraAdapter): void {
    const { params } = this.layout.forward;
    if (!params) return;
    const flat = new Float32Array(this.layout.parameters);
    for (const { a, b, matrix } of this.layout.places.values()) {
      const factors = adapter.matrices.get(matrix.module);
      if (
        !factors ||
        factors.rank !== matrix.rank ||
        factors.a.length !== matrix.rank * matrix.in ||
        factors.b.length !== matrix.out * matrix.rank
      ) {
        throw new TrainerError(
          'rank-mismatch',
          `The adapter has rank ${factors?.rank ?? 'none'} for ${matrix.module} where rank ${matrix.rank} was planned.`,
        );
      }
      flat.set(factors.a, a);
      flat.set(factors.b, b);
    }
    const { gpu } = this.#model;
    writeTensor(gpu, this.#arena.get(params), flat);
    const { backward } = this.layout;
    if (!backward) return;
    const encoder = gpu.device.createCommandEncoder();
    for (const ref of [backward.m, backward.v, backward.grads]) {
      const tensor = this.#arena.get(ref);
      encoder.clearBuffer(tensor.buffer, tensor.offset, tensor.bytes);
    }
    gpu.submit([encoder.finish()]);
  }

  /** Resolves when another {@link run} may begin without piling up. */
  whenFree(): Promise<void> {
    return this.#ring.whenFree();
  }

  /** Runs the plan on a batch. `normaliser` is 1 / labelled targets unless given. Resolves when the result is back. */
  async run(batch: Batch, hyper?: AdamwHyper): Promise<StepOutcome> {
    const { forward, backward } = this.layout;
    const { gpu } = this.#model;
    const write = (ref: Parameters<Arena['get']>[0], data: Float32Array | Uint32Array | Int32Array) =>
      writeTensor(gpu, this.#arena.get(ref), data);
    const targets = Math.max(1, batch.targetTokens);
    write(forward.ids, batch.ids);
    write(forward.targets, batch.targets);
    write(forward.normaliser, Float32Array.of(1 / targets));
    if (backward && hyper) write(backward.hyper, adamwHyper(hyper));
    this.plan.run();
    const report = await this.#ring.push(this.#arena.get(forward.report));
    const loss = (report[0] ?? Number.NaN) / targets;
    if (!Number.isFinite(loss) || (backward && report[REPORT_NORM_AT + 1] !== 0)) {
      throw new TrainerError(
        'non-finite',
        'The loss or a gradient is not a finite number; nothing was updated. Lower the learning rate.',
      );
    }
    return { loss, gradientNorm: backward ? (report[REPORT_NORM_AT] ?? 0) : 0 };
  }

  /** The factors as they stand, or their gradients after the last run. */
  async readFactors(which: 'params' | 'grads'): Promise<Map<string, LoraFactors>> {
    const { forward, backward } = this.layout;
    const ref = which === 'params' ? forward.params : backward?.grads;
    if (!ref) throw new TrainerError('bad-settings', 'This plan has no adapter to read.');
    const flat = await readTensor(this.#model.gpu, this.#arena.get(ref));
    const read = (at: number, elements: number) => flat.slice(at, at + elements);
    return new Map(
      [...this.layout.places.values()].map(({ matrix, a, b }) => [
        matrix.module,
        { ...matrix, a: read(a, matrix.rank * matrix.in), b: read(b, matrix.out * matrix.rank) },
      ]),
    );
  }

  /** The normed hidden states [N, D] of the last run. */
  readHidden(): Promise<Float32Array> {
    return readTensor(this.#model.gpu, this.#arena.get(this.layout.forward.normed));
  }

  destroy(): void {
    this.plan.destroy();
    this.#ring.destroy();
    this.#arena.destroy();
  }
}
