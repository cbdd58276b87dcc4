// Greedy generation: the likeliest token each time. Recomputes the sequence for every token.
import type { LoraAdapter } from '@weft/formats';
import { checkAdapter } from './lora/adapter.ts';
import { requireTokenizer } from './model/base-model.ts';
import type { GpuModel } from './plan/gpu-model.ts';
import { LogitsGraph } from './plan/logits.ts';

export interface GreedyOptions {
  readonly maxTokens: number;
  readonly signal?: AbortSignal;
  /** Told of every token as it comes. */
  onToken?(id: number): void;
}

const argmax = (values: Float32Array): number =>
  values.reduce((best, value, i) => (value > (values[best] ?? Number.NEGATIVE_INFINITY) ? i : best), 0);

/**
 * The tokens that follow `prompt`, at most `maxTokens`, ending before an end-of-text token or at the model's context.
 * Throws TrainerError 'bad-settings' for an empty prompt or one that fills the context, 'adapter-model' for an adapter of
 * another model.
 */
export async function generateGreedy(
  model: GpuModel,
  adapter: LoraAdapter | null,
  prompt: readonly number[],
  options: GreedyOptions,
): Promise<number[]> {
  if (adapter) checkAdapter(model.config, adapter);
  const { maxPositions, eosTokenIds } = model.config;
  const length = Math.min(maxPositions, Math.ceil((prompt.length + options.maxTokens) / 32) * 32);
  const graph = await LogitsGraph.create(model, length, adapter);
  const generated: number[] = [];
  try {
    while (generated.length < options.maxTokens && prompt.length + generated.length <= length) {
      options.signal?.throwIfAborted();
      const next = argmax(await graph.after([...prompt, ...generated]));
      if (eosTokenIds.includes(next)) break;
      generated.push(next);
      options.onToken?.(next);
    }
  } finally {
    graph.destroy();
  }
  return generated;
}

/** Tokens of a prompt as a continuation expects them: begin-of-text first where the tokenizer adds one. */
export function promptTokens(model: GpuModel, text: string): number[] {
  const tokenizer = requireTokenizer(model.model);
  return [...(tokenizer.bos === null ? [] : [tokenizer.bos]), ...tokenizer.encode(text)];
}
