// Text from a model, token by token, on a decoder that keeps keys and values.
import type { LoraAdapter } from '@weft/formats';
import { requireTokenizer } from './model/base-model.ts';
import { Decoder } from './plan/decoder.ts';
import type { GpuModel } from './plan/gpu-model.ts';
import { greedy, type Sampler } from './sampling.ts';
import { type StopRules, TextStream } from './text-stream.ts';

export interface GenerateOptions {
  readonly maxTokens: number;
  /** The likeliest token unless given. */
  readonly sampler?: Sampler;
  /** Beside the model's end-of-text tokens. */
  readonly stop?: StopRules;
  readonly signal?: AbortSignal;
  /** Told of every token as it comes, with the text that is certain by then ('' without a tokenizer). */
  onToken?(id: number, text: string): void;
}

export interface Generated {
  /** Without the token that ended the text. */
  readonly tokens: readonly number[];
  /** Up to a stop string; '' without a tokenizer. */
  readonly text: string;
  readonly ended: 'end-of-text' | 'stop-token' | 'stop-string' | 'max-tokens' | 'context';
}

/**
 * What follows `prompt`; whatever the decoder held is forgotten. Throws TrainerError 'bad-settings' for an empty prompt or one that fills
 * the decoder, 'non-finite', GpuError 'device-lost', or the signal's reason.
 */
export async function generate(
  decoder: Decoder,
  prompt: readonly number[],
  options: GenerateOptions,
): Promise<Generated> {
  const { config, tokenizer } = decoder.model.model;
  const { sampler = greedy, maxTokens, signal } = options;
  const stopTokens = new Set(options.stop?.tokens);
  const stream = tokenizer ? new TextStream(tokenizer, options.stop, prompt) : null;
  const tokens: number[] = [];
  let text = '';
  const end = (ended: Generated['ended']): Generated => ({ tokens, text: text + (stream?.finish() ?? ''), ended });
  decoder.rewind(0);
  let logits = await decoder.extend(prompt);
  while (tokens.length < maxTokens) {
    signal?.throwIfAborted();
    const next = sampler(logits);
    if (config.eosTokenIds.includes(next)) return end('end-of-text');
    if (stopTokens.has(next)) return end('stop-token');
    tokens.push(next);
    const sure = stream?.push(next) ?? '';
    text += sure;
    options.onToken?.(next, sure);
    if (stream?.stopped) return { tokens, text, ended: 'stop-string' };
    if (tokens.length === maxTokens) break;
    if (decoder.length === decoder.capacity) return end('context');
    logits = await decoder.extend([next]);
  }
  return end('max-tokens');
}

/** Greedy continuation of at most `maxTokens` on a decoder of its own. Throws TrainerError 'adapter-model' or as {@link generate}. */
export async function generateGreedy(
  model: GpuModel,
  adapter: LoraAdapter | null,
  prompt: readonly number[],
  options: Omit<GenerateOptions, 'sampler' | 'stop'>,
): Promise<number[]> {
  const capacity = Math.min(model.config.maxPositions, prompt.length + options.maxTokens);
  const decoder = await Decoder.create(model, capacity, adapter);
  try {
    return [...(await generate(decoder, prompt, options)).tokens];
  } finally {
    decoder.destroy();
  }
}

/** Tokens of a prompt as a continuation expects them: begin-of-text first where the tokenizer adds one. */
export function promptTokens(model: GpuModel, text: string): number[] {
  const tokenizer = requireTokenizer(model.model);
  return [...(tokenizer.bos === null ? [] : [tokenizer.bos]), ...tokenizer.encode(text)];
}
