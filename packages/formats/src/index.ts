// The ecosystem's files: safetensors, PEFT adapters, Hugging Face configurations and checkpoints, rows of data. Bytes in, bytes
// out.
export * from './byte-source.ts';
export * from './checkpoint.ts';
export * from './data.ts';
export * from './data-lines.ts';
export * from './data-rows.ts';
export * from './errors.ts';
export * from './half.ts';
export * from './hash.ts';
export * from './merge-adapter.ts';
export * from './model-card.ts';
export * from './model-config.ts';
export * from './model-tensors.ts';
export * from './peft.ts';
export * from './safetensors.ts';
export * from './safetensors-write.ts';
export * from './sparse.ts';
