// What the model makes of rows it does not train on: their loss, and the loss of each of them.
import type { LoraAdapter } from '@weft/formats';
import { evaluationBatches, sequenceFor } from './data/batches.ts';
import type { Example } from './data/examples.ts';
import { packExamples } from './data/packing.ts';
import { checkAdapter } from './lora/adapter.ts';
import type { GpuModel } from './plan/gpu-model.ts';
import type { StepOptions } from './plan/layout.ts';
import { StepGraph } from './plan/step.ts';

export interface HeldOutLoss {
  /** Σ cross-entropy of labelled targets / their number, nats. */
  readonly loss: number;
  readonly targetTokens: number;
  readonly rows: number;
}

/** Rows of a batch; packed, so a row may hold several examples. */
const BATCH = 8;

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
    options: { batchSize?: number; sides?: StepOptions['sides'] } = {},
  ): Promise<Evaluator> {
    if (adapter) checkAdapter(model.config, adapter);
    const matrices = adapter ? [...adapter.matrices.values()] : [];
    const sequence = sequenceFor(examples, model.config.maxPositions);
    const rows = packExamples(examples, sequence).length;
    const shape = { batch: Math.min(options.batchSize ?? BATCH, rows), sequence };
    const graph = await StepGraph.create(model, matrices, shape, { training: false, sides: options.sides ?? [] });
    if (adapter) graph.loadAdapter(adapter);
    return new Evaluator(graph, shape);
  }

  /** Throws TrainerError 'non-finite', GpuError 'device-lost', or the signal's reason. */
  async loss(examples: readonly Example[], signal?: AbortSignal): Promise<HeldOutLoss> {
    let sum = 0;
    let targetTokens = 0;
    const { batch: rowCount, sequence } = this.#shape;
    for (const batch of evaluationBatches(packExamples(examples, sequence), rowCount, sequence)) {
      signal?.throwIfAborted();
      const { loss } = await this.#graph.run([batch]);
      sum += loss * batch.targetTokens;
      targetTokens += batch.targetTokens;
    }
    return { loss: sum / targetTokens, targetTokens, rows: examples.length };
  }

  /** Σ cross-entropy of the labelled targets of each example, nats: minus its log-likelihood. */
  async sums(examples: readonly Example[], signal?: AbortSignal): Promise<number[]> {
    const { batch: rowCount, sequence } = this.#shape;
    const packed = packExamples(examples, sequence);
    const sums = new Map<Example, number>();
    let firstRow = 0;
    for (const batch of evaluationBatches(packed, rowCount, sequence)) {
      signal?.throwIfAborted();
      await this.#graph.run([batch]);
      const losses = await this.#graph.readLossRows();
      for (const [row, held] of packed.slice(firstRow, firstRow + rowCount).entries()) {
        let at = row * sequence;
        for (const example of held) {
          const end = at + example.inputIds.length;
          sums.set(
            example,
            losses.subarray(at, end).reduce((sum, loss) => sum + loss, 0),
          );
          at = end;
        }
      }
      firstRow += rowCount;
    }
    return examples.map((example) => sums.get(example) ?? Number.NaN);
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
  options: { batchSize?: number; sides?: StepOptions['sides']; signal?: AbortSignal } = {},
): Promise<HeldOutLoss> {
  const evaluator = await Evaluator.create(model, adapter, examples, options);
  try {
    return await evaluator.loss(examples, options.signal);
  } finally {
    evaluator.destroy();
  }
}
