// The door for outside checks: loss and LoRA gradients of a whole file as one padded batch, no dropout, no clipping.
import { type LoraAdapter, type LoraFactors, peftTensorName, writeSafetensors } from '@weft/formats';
import { makeBatch } from './data/batches.ts';
import type { Example } from './data/examples.ts';
import { checkAdapter } from './lora/adapter.ts';
import type { GpuModel } from './plan/gpu-model.ts';
import type { StepOptions } from './plan/layout.ts';
import { StepGraph } from './plan/step.ts';

export interface LossAndGradients {
  /** Mean over all labelled targets, nats. */
  readonly loss: number;
  /** Gradients in the place of factors, by module. */
  readonly gradients: ReadonlyMap<string, LoraFactors>;
}

/** Throws TrainerError 'adapter-model', or GpuError where the batch does not fit. */
export async function lossAndGradients(
  model: GpuModel,
  adapter: LoraAdapter,
  examples: readonly Example[],
  options: Pick<StepOptions, 'microBatch' | 'checkpoint' | 'sides' | 'trainable' | 'tail'> = {},
): Promise<LossAndGradients> {
  checkAdapter(model.config, adapter);
  const batch = examples.length;
  const { microBatch = batch } = options;
  const sequence = Math.max(...examples.map(({ inputIds }) => inputIds.length));
  const graph = await StepGraph.create(
    model,
    [...adapter.matrices.values()],
    { batch, sequence },
    { ...options, training: true, update: false },
  );
  try {
    graph.loadAdapter(adapter);
    const batches = Array.from({ length: batch / microBatch }, (_, i) =>
      makeBatch(
        examples.slice(i * microBatch, (i + 1) * microBatch).map((example) => [example]),
        microBatch,
        sequence,
      ),
    );
    const { loss } = await graph.run(batches);
    return { loss, gradients: await graph.readFactors('grads') };
  } finally {
    graph.destroy();
  }
}

/** The same as a safetensors file: `loss` (an F32 scalar) and the gradients under PEFT's names. */
export function writeGradients({ loss, gradients }: LossAndGradients): Uint8Array {
  const tensors = [...gradients.values()].flatMap(({ module, rank, in: columns, out, a, b }) => [
    { name: peftTensorName(module, 'A'), dtype: 'F32' as const, shape: [rank, columns], data: a },
    { name: peftTensorName(module, 'B'), dtype: 'F32' as const, shape: [out, rank], data: b },
  ]);
  return writeSafetensors([...tensors, { name: 'loss', dtype: 'F32', shape: [], data: Float32Array.of(loss) }]);
}
