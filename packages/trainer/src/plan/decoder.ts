// Generation with a key-value cache: every token is computed once. Two plans share one arena, one for a chunk of the prompt
// and one for a single token, each with the adapter and without, so that the adapter is switched without reloading
// anything.
import type { LoraAdapter, LoraFactors } from '@weft/formats';
import {
  type Arena,
  ArenaPlan,
  attentionForward,
  copyRows,
  embeddingForward,
  type KernelCall,
  type Plan,
  PlanRecorder,
  readTensor,
  rmsNormForward,
  ropeTables,
  subTensor,
  type Tensor,
  weightNT,
  weightOf,
} from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';
import { checkAdapter } from '../lora/adapter.ts';
import { type Attend, attentionSizes, blockForward } from './block.ts';
import { GraphBuilder } from './builder.ts';
import { FactorLayout } from './factors.ts';
import { type GpuModel, slabLimit } from './gpu-model.ts';
import { headName } from './layout.ts';

/** Tokens of the prompt computed at once. */
const CHUNK = 32;

interface Cache {
  /** [C, kvHeads · headSize] */
  readonly k: Tensor;
  readonly v: Tensor;
}

interface DecoderTensors {
  /** All of CHUNK rows; a single token uses the first. */
  readonly ids: Tensor;
  readonly positions: Tensor;
  readonly querySpans: Tensor;
  /** u32 [1]: the row whose logits are wanted. */
  readonly row: Tensor;
  readonly logits: Tensor;
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly caches: readonly Cache[];
}

/** Attention over everything cached so far, after the rows at hand have joined it. */
function attendCached(g: GraphBuilder, caches: readonly Cache[]): Attend {
  return (layer, q, k, v) => {
    const cache = caches[layer];
    if (!cache) throw new TrainerError('bad-settings', `Layer ${layer} has no cache.`);
    const out = g.temporary('attention', q.shape);
    const lse = g.temporary('lse', [g.rows, g.config.heads]);
    const rows = g.batch.positions;
    g.push([
      ...copyRows({ x: k, rows, out: cache.k }),
      ...copyRows({ x: v, rows, out: cache.v }),
      ...attentionForward(
        { q, k: cache.k, v: cache.v, spans: g.batch.querySpans, out, lse },
        attentionSizes(g.config, layer),
      ),
    ]);
    return { out, lse };
  };
}

function decodeCalls(
  model: GpuModel,
  plan: ArenaPlan,
  tensors: DecoderTensors,
  { rows, adapters, limit }: { rows: number; adapters: readonly FactorLayout[]; limit: number },
): KernelCall[] {
  const { config } = model;
  const first = (x: Tensor, width = 1) => subTensor(x, 0, width === 1 ? [rows] : [rows, width]);
  const g = new GraphBuilder({
    plan,
    config,
    weights: model,
    rows,
    batch: {
      ids: first(tensors.ids),
      positions: first(tensors.positions),
      querySpans: first(tensors.querySpans, 2),
    },
    rope: { cos: tensors.cos, sin: tensors.sin },
    adapters,
    dropout: null,
    limit,
  });
  let x = g.temporary('stream', [rows, config.hiddenSize]);
  g.push(embeddingForward({ ids: g.batch.ids, table: model.matrix('model.embed_tokens.weight'), out: x }));
  const attend = attendCached(g, tensors.caches);
  for (let layer = 0; layer < config.layers; layer += 1) {
    const next = g.temporary('stream', x.shape);
    blockForward(g, layer, x, { next, attend });
    x = next;
  }
  const normed = g.temporary('normed', x.shape);
  const rstd = g.temporary('rstd', [rows]);
  const hidden = g.temporary('hidden', [1, config.hiddenSize]);
  g.push([
    ...rmsNormForward({ x, weight: model.vector('model.norm.weight'), y: normed, rstd }, { eps: config.normEpsilon }),
    ...embeddingForward({ ids: tensors.row, table: weightOf(normed), out: hidden }),
    ...weightNT({ x: hidden, w: model.matrix(headName(config)), y: tensors.logits }),
  ]);
  return g.calls;
}

type Variant = `${'chunk' | 'token'}/${'adapted' | 'bare'}`;

export class Decoder {
  readonly model: GpuModel;
  /** Tokens the cache holds. */
  readonly capacity: number;
  readonly #arena: Arena;
  readonly #tensors: DecoderTensors;
  readonly #calls: ReadonlyMap<Variant, readonly KernelCall[]>;
  readonly #plans = new Map<Variant, Plan>();
  #length = 0;
  #adapted: boolean;

  private constructor(
    model: GpuModel,
    capacity: number,
    arena: Arena,
    tensors: DecoderTensors,
    calls: ReadonlyMap<Variant, readonly KernelCall[]>,
  ) {
    this.model = model;
    this.capacity = capacity;
    this.#arena = arena;
    this.#tensors = tensors;
    this.#calls = calls;
    this.#adapted = calls.has('token/adapted');
  }

  /**
   * For sequences of up to `capacity` tokens, at most the model's context. Throws TrainerError 'adapter-model' or
   * 'bad-settings', GpuError 'out-of-memory' or 'shape'.
   */
  static async create(model: GpuModel, capacity: number, adapter: LoraAdapter | null = null): Promise<Decoder> {
    const { gpu, config } = model;
    if (!(capacity >= 1 && capacity <= config.maxPositions)) {
      throw new TrainerError(
        'bad-settings',
        `A sequence of ${capacity} tokens does not fit the model's context of ${config.maxPositions}.`,
      );
    }
    if (adapter) checkAdapter(config, adapter);
    const limit = slabLimit(gpu);
    const plan = new ArenaPlan(limit);
    // A chunk's unused rows are written beyond the last token, so the cache is one chunk longer.
    const length = capacity + CHUNK;
    const cache = (name: string) => plan.tensor(name, [length, config.kvHeads * config.headSize]);
    const tensors: DecoderTensors = {
      ids: plan.tensor('ids', [CHUNK], 'u32'),
      positions: plan.tensor('positions', [CHUNK], 'u32'),
      querySpans: plan.tensor('spans.query', [CHUNK, 2], 'u32'),
      row: plan.tensor('row', [1], 'u32'),
      logits: plan.tensor('logits', [1, config.vocabSize]),
      cos: plan.tensor('rope.cos', [length, config.headSize / 2]),
      sin: plan.tensor('rope.sin', [length, config.headSize / 2]),
      caches: Array.from({ length: config.layers }, (_, i) => ({ k: cache(`cache.k.${i}`), v: cache(`cache.v.${i}`) })),
    };
    const matrices: LoraFactors[] = adapter ? [...adapter.matrices.values()] : [];
    const factors = FactorLayout.plan(plan, 'lora', matrices, { trainable: null, limit });
    const calls = new Map<Variant, KernelCall[]>();
    for (const [name, rows] of [
      ['chunk', CHUNK],
      ['token', 1],
    ] as const) {
      calls.set(`${name}/bare`, decodeCalls(model, plan, tensors, { rows, adapters: [], limit }));
      if (adapter)
        calls.set(`${name}/adapted`, decodeCalls(model, plan, tensors, { rows, adapters: [factors], limit }));
    }
    plan.shareMemory([...calls.values()].flat());
    const arena = await plan.allocate(gpu);
    const { cos, sin } = ropeTables(length, config.headSize, { theta: config.ropeTheta, scaling: config.ropeScaling });
    arena.write(arena.get(tensors.cos), cos);
    arena.write(arena.get(tensors.sin), sin);
    if (adapter) {
      for (const contents of [factors.gather('params', adapter.matrices), factors.elementContents()])
        for (const [ref, content] of contents) arena.write(arena.get(ref), content);
    }
    return new Decoder(model, capacity, arena, tensors, calls);
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.#length;
  }

  /** Switches the adapter on or off, and forgets the tokens so far. Throws TrainerError 'bad-settings' where there is none. */
  useAdapter(on: boolean): void {
    if (on && !this.#calls.has('token/adapted'))
      throw new TrainerError('bad-settings', 'This decoder was made without an adapter.');
    this.#adapted = on;
    this.#length = 0;
  }

  /** Forgets all but the first `length` tokens. */
  rewind(length: number): void {
    this.#length = Math.max(0, Math.min(this.#length, length));
  }

  /** Appends tokens; resolves with the logits [V] that follow. Throws TrainerError 'bad-settings', GpuError 'device-lost'. */
  async extend(tokens: readonly number[]): Promise<Float32Array> {
    if (tokens.length === 0 || this.#length + tokens.length > this.capacity) {
      throw new TrainerError(
        'bad-settings',
        `${tokens.length} tokens after ${this.#length} do not fit a decoder of ${this.capacity}.`,
      );
    }
    for (let first = 0; first < tokens.length; ) {
      const rest = tokens.length - first;
      const rows = rest === 1 ? 1 : CHUNK;
      const count = Math.min(rest, rows);
      this.#load(tokens.slice(first, first + count));
      const plan = await this.#plan(`${rows === 1 ? 'token' : 'chunk'}/${this.#adapted ? 'adapted' : 'bare'}`);
      plan.run();
      this.#length += count;
      first += count;
    }
    return await readTensor(this.model.gpu, this.#arena.get(this.#tensors.logits));
  }

  #load(tokens: readonly number[]): void {
    const ids = new Uint32Array(CHUNK);
    ids.set(tokens);
    const positions = Uint32Array.from({ length: CHUNK }, (_, i) => this.#length + i);
    const spans = new Uint32Array(2 * CHUNK);
    for (const [i, position] of positions.entries()) spans[2 * i + 1] = position;
    const { ids: idsRef, positions: positionsRef, querySpans, row } = this.#tensors;
    for (const [ref, content] of [
      [idsRef, ids],
      [positionsRef, positions],
      [querySpans, spans],
      [row, Uint32Array.of(tokens.length - 1)],
    ] as const)
      this.#arena.write(this.#arena.get(ref), content);
  }

  async #plan(variant: Variant): Promise<Plan> {
    const known = this.#plans.get(variant);
    if (known) return known;
    const recorder = new PlanRecorder(this.model.gpu);
    recorder.call(...this.#arena.bind(this.#calls.get(variant) ?? []));
    const plan = await recorder.finish();
    this.#plans.set(variant, plan);
    return plan;
  }

  destroy(): void {
    for (const plan of this.#plans.values()) plan.destroy();
    this.#arena.destroy();
  }
}
