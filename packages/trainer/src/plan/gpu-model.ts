// The base model's weights on the GPU, uploaded once and shared by every plan. Encoded piece by piece while they are read,
// so that the model never exists in float32 as a whole.
import { type ModelConfig, modelTensors } from '@weft/formats';
import {
  type Arena,
  ArenaPlan,
  bindWeight,
  type Gpu,
  GpuError,
  planWeight,
  SLAB_BYTES,
  type Tensor,
  type TensorRef,
  type TensorSource,
  type WeightMatrix,
  type WeightRefs,
  type WeightType,
  writeWeightRows,
} from '@weft/wgsl-kernels';
import type { BaseModel } from '../model/base-model.ts';
import type { ModelWeights } from './builder.ts';

/** Largest buffer one binding of this device covers, at most the default 128 MiB. */
export const slabLimit = (gpu: Gpu): number =>
  Math.min(SLAB_BYTES, gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);

/** Elements encoded at once: some 16 MiB of float32. */
const PIECE_ELEMENTS = 4 * 1024 * 1024;

/** Embedding and head keep eight bits where the rest has four: their errors reach the loss directly. */
const typeOf = (name: string, type: WeightType): WeightType =>
  type === 'q4' && (name === 'model.embed_tokens.weight' || name === 'lm_head.weight') ? 'q8' : type;

export interface WeightsPlan {
  readonly plan: ArenaPlan;
  readonly matrices: ReadonlyMap<string, WeightRefs>;
  readonly vectors: ReadonlyMap<string, TensorRef>;
}

/** Plans the weights of a model, matrices of `type`, by Hugging Face name. */
export function planWeights(config: ModelConfig, type: WeightType, limit: number = SLAB_BYTES): WeightsPlan {
  const plan = new ArenaPlan(limit);
  const matrices = new Map<string, WeightRefs>();
  const vectors = new Map<string, TensorRef>();
  for (const { name, shape } of modelTensors(config)) {
    const [rows = 1, columns] = shape;
    if (columns === undefined) vectors.set(name, plan.tensor(name, shape));
    else matrices.set(name, planWeight(plan, name, [rows, columns], typeOf(name, type), limit));
  }
  return { plan, matrices, vectors };
}

/** The planned weights, looked up in an arena, or in the plan itself to describe calls. */
export function weightsIn({ matrices, vectors }: WeightsPlan, source: TensorSource): ModelWeights {
  const missing = (name: string): never => {
    throw new GpuError('shape', `The model has no tensor ${name}.`);
  };
  const bound = new Map<string, WeightMatrix>();
  return {
    matrix(name) {
      const known = bound.get(name);
      if (known) return known;
      const matrix = bindWeight(matrices.get(name) ?? missing(name), source);
      bound.set(name, matrix);
      return matrix;
    },
    vector: (name) => source.get(vectors.get(name) ?? missing(name)),
  };
}

async function uploadMatrix(gpu: Gpu, model: BaseModel, weight: WeightMatrix): Promise<void> {
  const { columns, rows, name } = weight;
  const rowsAtOnce = Math.max(1, Math.floor(PIECE_ELEMENTS / columns));
  for (let row = 0; row < rows; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - row);
    writeWeightRows(gpu, weight, row, await model.checkpoint.read(name, row * columns, count * columns));
  }
}

export class GpuModel implements ModelWeights {
  readonly gpu: Gpu;
  readonly model: BaseModel;
  readonly type: WeightType;
  readonly #arena: Arena;
  readonly #weights: ModelWeights;

  private constructor(gpu: Gpu, model: BaseModel, type: WeightType, arena: Arena, weights: ModelWeights) {
    this.gpu = gpu;
    this.model = model;
    this.type = type;
    this.#arena = arena;
    this.#weights = weights;
  }

  /**
   * Reads, encodes and uploads the weights, matrices as `type` (float32 unless given). Throws GpuError 'out-of-memory',
   * 'device-lost', 'shape', or 'weight-value' for a weight beyond the type's range; FormatError.
   */
  static async upload(
    gpu: Gpu,
    model: BaseModel,
    options: { type?: WeightType; signal?: AbortSignal; onProgress?: (done: number, total: number) => void } = {},
  ): Promise<GpuModel> {
    const { type = 'f32', signal, onProgress } = options;
    const planned = planWeights(model.config, type, slabLimit(gpu));
    const arena = await planned.plan.allocate(gpu);
    const weights = weightsIn(planned, arena);
    const total = planned.matrices.size + planned.vectors.size;
    let done = 0;
    try {
      const uploaded = async () => {
        signal?.throwIfAborted();
        if (gpu.isLost()) throw new GpuError('device-lost', 'The GPU was lost while the model was loaded.');
        done += 1;
        onProgress?.(done, total);
        // Uploads queue up in host memory until the device has taken them.
        if (done % 16 === 0) await gpu.device.queue.onSubmittedWorkDone();
      };
      for (const name of planned.matrices.keys()) {
        await uploadMatrix(gpu, model, weights.matrix(name));
        await uploaded();
      }
      for (const [name, ref] of planned.vectors) {
        arena.write(arena.get(ref), await model.checkpoint.read(name, 0, ref.elements));
        await uploaded();
      }
    } catch (error) {
      arena.destroy();
      throw error;
    }
    return new GpuModel(gpu, model, type, arena, weights);
  }

  get config(): ModelConfig {
    return this.model.config;
  }

  get bytes(): number {
    return this.#arena.bytes;
  }

  matrix(name: string): WeightMatrix {
    return this.#weights.matrix(name);
  }

  vector(name: string): Tensor {
    return this.#weights.vector(name);
  }

  destroy(): void {
    this.#arena.destroy();
  }
}
