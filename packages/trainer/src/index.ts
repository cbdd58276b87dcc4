// A Llama-family decoder with LoRA on WGSL kernels: loads, trains, evaluates, generates. Knows no network.

export { type Gpu, GpuError, openGpu } from '@weft/wgsl-kernels';
export * from './baselines.ts';
export * from './data/batches.ts';
export * from './data/examples.ts';
export * from './errors.ts';
export * from './evaluate.ts';
export * from './generate.ts';
export * from './gradients.ts';
export * from './local-trainer.ts';
export * from './lora/adapter.ts';
export * from './model/base-model.ts';
export * from './model/tokenizer.ts';
export * from './optim/schedule.ts';
export * from './plan/gpu-model.ts';
export * from './plan/layout.ts';
export * from './plan/memory.ts';
export * from './plan/step.ts';
export * from './random.ts';
export * from './rank.ts';
export * from './train.ts';
