// Forward pass to the logits of one position: what generation needs. Rows after the position cannot influence it, so the
// same plan serves every step of a continuation.
import type { LoraAdapter } from '@weft/formats';
import {
  type Arena,
  ArenaPlan,
  embeddingForward,
  matmulNT,
  type Plan,
  PlanRecorder,
  readTensor,
  ropeTables,
  type TensorRef,
  writeTensor,
} from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { headName, hiddenStates } from './forward.ts';
import { type GpuModel, slabLimit } from './gpu-model.ts';
import { type Layout, planLayout } from './layout.ts';

interface HeadRefs {
  readonly position: TensorRef;
  readonly hidden: TensorRef;
  readonly logits: TensorRef;
}

export class LogitsGraph {
  readonly sequence: number;
  readonly #model: GpuModel;
  readonly #layout: Layout;
  readonly #arenas: readonly [Arena, Arena];
  readonly #head: HeadRefs;
  readonly #plan: Plan;

  private constructor(model: GpuModel, layout: Layout, arenas: readonly [Arena, Arena], head: HeadRefs, plan: Plan) {
    this.#model = model;
    this.#layout = layout;
    this.#arenas = arenas;
    this.#head = head;
    this.#plan = plan;
    this.sequence = layout.shape.sequence;
  }

  /** For sequences of up to `sequence` tokens, with the adapter's factors in place where one is given. */
  static async create(model: GpuModel, sequence: number, adapter: LoraAdapter | null): Promise<LogitsGraph> {
    const { gpu, config } = model;
    const matrices: AdaptedMatrix[] = adapter ? [...adapter.matrices.values()] : [];
    const layout = planLayout(config, matrices, { batch: 1, sequence }, { training: false, slabLimit: slabLimit(gpu) });
    const headPlan = new ArenaPlan(slabLimit(gpu));
    const head = {
      position: headPlan.tensor('position', [1], 'u32'),
      hidden: headPlan.tensor('hidden', [1, config.hiddenSize]),
      logits: headPlan.tensor('logits', [1, config.vocabSize]),
    };
    const arena = await layout.plan.allocate(gpu);
    let headArena: Arena | null = null;
    try {
      headArena = await headPlan.allocate(gpu);
      const recorder = new PlanRecorder(gpu);
      const graph = { layout, source: arena, weight: (name: string) => model.weight(name) };
      const hidden = headArena.get(head.hidden);
      recorder.call(
        ...hiddenStates(graph, config),
        ...embeddingForward({
          ids: headArena.get(head.position),
          table: arena.get(layout.forward.normed),
          out: hidden,
        }),
        ...matmulNT({ a: hidden, b: model.weight(headName(config)), c: headArena.get(head.logits) }),
      );
      const plan = await recorder.finish();
      const { cos, sin } = ropeTables(sequence, config.headSize, config.ropeTheta);
      arena.write(arena.get(layout.forward.cos), cos);
      arena.write(arena.get(layout.forward.sin), sin);
      if (adapter && layout.forward.params) {
        const flat = new Float32Array(layout.parameters);
        for (const { a, b, matrix } of layout.places.values()) {
          const factors = adapter.matrices.get(matrix.module);
          if (!factors) throw new TrainerError('adapter-model', `The adapter has no ${matrix.module}.`);
          flat.set(factors.a, a);
          flat.set(factors.b, b);
        }
        arena.write(arena.get(layout.forward.params), flat);
      }
      return new LogitsGraph(model, layout, [arena, headArena], head, plan);
    } catch (error) {
      headArena?.destroy();
      arena.destroy();
      throw error;
    }
  }

  /** Logits [V] that follow `tokens`. Throws TrainerError 'bad-settings' when there are none, or more than `sequence`. */
  async after(tokens: readonly number[]): Promise<Float32Array> {
    if (tokens.length === 0 || tokens.length > this.sequence) {
      throw new TrainerError('bad-settings', `${tokens.length} tokens do not fit a plan of 1 to ${this.sequence}.`);
    }
    const { gpu } = this.#model;
    const [arena, headArena] = this.#arenas;
    const ids = new Uint32Array(this.sequence);
    ids.set(tokens);
    writeTensor(gpu, arena.get(this.#layout.forward.ids), ids);
    writeTensor(gpu, headArena.get(this.#head.position), Uint32Array.of(tokens.length - 1));
    this.#plan.run();
    return await readTensor(gpu, headArena.get(this.#head.logits));
  }

  destroy(): void {
    this.#plan.destroy();
    for (const arena of this.#arenas) arena.destroy();
  }
}
