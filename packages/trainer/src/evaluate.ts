// Held-out loss: what the model makes of rows it does not train on.
import type { LoraAdapter } from '@weft/formats';
import { evaluationBatches, sequenceFor } from './data/batches.ts';
import type { Example } from './data/examples.ts';
import { checkAdapter } from './lora/adapter.ts';
import type { GpuModel } from './plan/gpu-model.ts';
import { StepGraph } from './plan/step.ts';

export interface HeldOutLoss {
  /** Σ cross-entropy of labelled targets / their number, nats. */
  readonly loss: number;
  readonly targetTokens: number;
  readonly rows: number;
}

/** Keeps the plan of one adapter for several sets of examples. */
export class Evaluator {
  readonly #graph: StepGraph;
  readonly #shape: { batch: number; sequence: number };

  private constructor(graph: StepGraph, shape: { batch: number; sequence: number }) {
    this.#graph = graph;
    this.#shape = shape;
  }

  /** For examples no longer than the longest of `examples`. Throws TrainerError 'adapter-model'. */
  static async create(
    model: GpuModel,
    adapter: LoraAdapter | null,
    examples: readonly Example[],
    options: { batchSize?: number } = {},
  ): Promise<Evaluator> {
    if (adapter) checkAdapter(model.config, adapter);
    const matrices = adapter ? [...adapter.matrices.values()] : [];
    const shape = { batch: options.batchSize ?? 8, sequence: sequenceFor(examples, model.config.maxPositions) };
    const graph = await StepGraph.create(model, matrices, shape, { training: false });
    if (adapter) graph.loadAdapter(adapter);
    return new Evaluator(graph, shape);
  }

  async loss(examples: readonly Example[], signal?: AbortSignal): Promise<HeldOutLoss> {
    let sum = 0;
    let targetTokens = 0;
    for (const batch of evaluationBatches(examples, this.#shape.batch, this.#shape.sequence)) {
      signal?.throwIfAborted();
      const { loss } = await this.#graph.run(batch);
      sum += loss * batch.targetTokens;
      targetTokens += batch.targetTokens;
    }
    return { loss: sum / targetTokens, targetTokens, rows: examples.length };
  }

  destroy(): void {
    this.#graph.destroy();
  }
}

/** {@link Evaluator} for one set of examples. */
export async function evaluateLoss(
  model: GpuModel,
  adapter: LoraAdapter | null,
  examples: readonly Example[],
  options: { batchSize?: number; signal?: AbortSignal } = {},
): Promise<HeldOutLoss> {
  const evaluator = await Evaluator.create(model, adapter, examples, options);
  try {
    return await evaluator.loss(examples, options.signal);
  } finally {
    evaluator.destroy();
  }
}
