// What the parts of a model share while they describe their kernel calls: sizes, weights, factors, the tensors of a batch,
// and the list the calls go to. Nothing here touches a GPU; tensors are symbolic until an arena binds them.
import type { ModelConfig } from '@weft/formats';
import type { ArenaPlan, ElementType, KernelCall, Tensor, WeightMatrix } from '@weft/wgsl-kernels';
import type { FactorLayout } from './factors.ts';

/** The base model's weights by Hugging Face name. Both throw GpuError 'shape' for a name the model does not have. */
export interface ModelWeights {
  matrix(name: string): WeightMatrix;
  vector(name: string): Tensor;
}

/** The tensors a batch is written to; N rows. */
export interface BatchTensors {
  /** u32 [N] */
  readonly ids: Tensor;
  /** u32 [N] */
  readonly positions: Tensor;
  /** u32 [N, 2]: first and last row each query sees. */
  readonly querySpans: Tensor;
}

export interface Dropout {
  readonly rate: number;
  /** u32 [2], new for every micro-batch. */
  readonly seed: Tensor;
}

export class GraphBuilder {
  readonly plan: ArenaPlan;
  readonly calls: KernelCall[] = [];
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  /** N: rows of a (micro-)batch times tokens of a row. */
  readonly rows: number;
  readonly batch: BatchTensors;
  readonly rope: { readonly cos: Tensor; readonly sin: Tensor };
  /** Adapters by their effect: the first is the one in training, the others are frozen. */
  readonly adapters: readonly FactorLayout[];
  readonly dropout: Dropout | null;
  /** Largest tensor in bytes. */
  readonly limit: number;
  #temporaries = 0;

  constructor(
    parts: Pick<
      GraphBuilder,
      'plan' | 'config' | 'weights' | 'rows' | 'batch' | 'rope' | 'adapters' | 'dropout' | 'limit'
    >,
  ) {
    this.plan = parts.plan;
    this.config = parts.config;
    this.weights = parts.weights;
    this.rows = parts.rows;
    this.batch = parts.batch;
    this.rope = parts.rope;
    this.adapters = parts.adapters;
    this.dropout = parts.dropout;
    this.limit = parts.limit;
  }

  push(calls: readonly KernelCall[]): void {
    this.calls.push(...calls);
  }

  /** A tensor that lives from the first call that binds it to the last. */
  temporary(name: string, shape: readonly number[], type: ElementType = 'f32'): Tensor {
    this.#temporaries += 1;
    return this.plan.tensor(`${name}#${this.#temporaries}`, shape, type, { shared: true });
  }
}
