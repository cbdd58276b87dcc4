// The mathematics of every kernel in plain float64, written to be read and not to be fast. Tests hold kernels to it; it is
// itself held to central differences. No kernel is run from here and no reference is used in training.
export * from './adamw.ts';
export * from './attention.ts';
export * from './cross-entropy.ts';
export * from './dropout.ts';
export * from './linear-lora.ts';
export * from './matmul.ts';
export * from './numbers.ts';
export * from './rms-norm.ts';
export * from './rope.ts';
export * from './sgd.ts';
export * from './sparse-linear.ts';
export * from './swiglu.ts';
export * from './tail-penalty.ts';
