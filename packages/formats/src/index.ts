// The ecosystem's files: safetensors, PEFT adapters, Hugging Face configurations, data lines. Bytes in, bytes out.
export * from './data-lines.ts';
export * from './errors.ts';
export * from './half.ts';
export * from './hash.ts';
export * from './model-config.ts';
export * from './peft.ts';
export * from './safetensors.ts';
