// The base model's weights on the GPU, uploaded once and shared by every plan.
import { type ModelConfig, modelTensors } from '@weft/formats';
import { type Arena, ArenaPlan, type Gpu, GpuError, SLAB_BYTES, type Tensor, type TensorRef } from '@weft/wgsl-kernels';
import type { BaseModel } from '../model/base-model.ts';

/** Largest buffer one binding of this device covers, at most the default 128 MiB. */
export const slabLimit = (gpu: Gpu): number =>
  Math.min(SLAB_BYTES, gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);

/** Plans the weights of a model. `refs` go by Hugging Face name. Throws GpuError 'shape' for a tensor beyond `limit` bytes. */
export function planWeights(
  config: ModelConfig,
  limit: number = SLAB_BYTES,
): { plan: ArenaPlan; refs: Map<string, TensorRef> } {
  const plan = new ArenaPlan(limit);
  const refs = new Map(modelTensors(config).map(({ name, shape }) => [name, plan.tensor(name, shape)]));
  return { plan, refs };
}

export class GpuModel {
  readonly gpu: Gpu;
  readonly model: BaseModel;
  readonly #arena: Arena;
  readonly #refs: ReadonlyMap<string, TensorRef>;

  private constructor(gpu: Gpu, model: BaseModel, arena: Arena, refs: ReadonlyMap<string, TensorRef>) {
    this.gpu = gpu;
    this.model = model;
    this.#arena = arena;
    this.#refs = refs;
  }

  /** Uploads the weights. Throws GpuError 'out-of-memory' or 'shape'. */
  static async upload(gpu: Gpu, model: BaseModel): Promise<GpuModel> {
    const { plan, refs } = planWeights(model.config, slabLimit(gpu));
    const arena = await plan.allocate(gpu);
    for (const [name, ref] of refs) {
      const data = model.weights.get(name);
      if (data) arena.write(arena.get(ref), data);
    }
    return new GpuModel(gpu, model, arena, refs);
  }

  get config(): ModelConfig {
    return this.model.config;
  }

  get bytes(): number {
    return this.#arena.bytes;
  }

  /** Throws GpuError 'shape' for a name the model does not have. */
  weight(name: string): Tensor {
    const ref = this.#refs.get(name);
    if (!ref) throw new GpuError('shape', `The model has no tensor ${name}.`);
    return this.#arena.get(ref);
  }

  destroy(): void {
    this.#arena.destroy();
  }
}
