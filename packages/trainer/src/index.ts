// A Llama-family decoder with LoRA on WGSL kernels: loads, trains, evaluates, generates. Knows no network.

export {
  type Gpu,
  GpuError,
  openGpu,
  type TuningStore,
  tuneVariants,
  WEIGHT_TYPES,
  type WeightType,
} from '@weft/wgsl-kernels';
export * from './baselines.ts';
export * from './data/batches.ts';
export type { AssistantTurns } from './data/chat.ts';
export * from './data/examples.ts';
export * from './data/packing.ts';
export * from './data/preview.ts';
export * from './data/prompts.ts';
export * from './data/split.ts';
export * from './errors.ts';
export * from './evaluate.ts';
export * from './generate.ts';
export * from './gradients.ts';
export * from './local-trainer.ts';
export * from './lora/adapter.ts';
export type { Pruning } from './lora/pruning.ts';
export * from './lora/sparse.ts';
export * from './metrics/index.ts';
export * from './model/base-model.ts';
export * from './model/chat-template.ts';
export * from './model/tokenizer.ts';
export * from './optim/optimiser.ts';
export * from './optim/schedule.ts';
export * from './plan/decoder.ts';
export type { FactorKind, Trainable } from './plan/factors.ts';
export * from './plan/fit.ts';
export * from './plan/flops.ts';
export * from './plan/gpu-model.ts';
export * from './plan/layout.ts';
export * from './plan/memory.ts';
export * from './plan/profile.ts';
export * from './plan/step.ts';
export * from './random.ts';
export * from './rank.ts';
export * from './sampling.ts';
export * from './snapshot.ts';
export * from './text-stream.ts';
export * from './train.ts';
export * from './train-through-loss.ts';
