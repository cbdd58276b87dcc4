// Tiny models of every family, with the shapes real ones never have together: odd sizes, one to eight query heads a key
// head, heads of 4 to 128. Each is a config.json as the family writes it, and beside it, by hand, what that must mean: a
// reader that understands it otherwise computes another model.
import type { ModelConfig } from '@weft/formats';

export interface Family {
  readonly name: string;
  /** config.json without the sizes that `config` gives. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly config: ModelConfig;
  /** Element type of matrices in the file. */
  readonly dtype: 'F32' | 'F16' | 'BF16';
  /** Files the weights are spread over; 1 is a plain model.safetensors. */
  readonly shards: number;
}

const plain = {
  architecture: 'LlamaForCausalLM',
  layers: 2,
  maxPositions: 64,
  normEpsilon: 1e-5,
  ropeTheta: 10_000,
  ropeScaling: null,
  biases: [],
  queryKeyNorm: false,
  windows: [null, null],
  tiedEmbeddings: false,
  bosTokenId: 1,
  eosTokenIds: [2],
} as const;

export const FAMILIES: readonly Family[] = [
  {
    // No head_dim, num_key_value_heads or rope_theta: all follow from what is there.
    name: 'llama-2',
    json: { model_type: 'llama', rope_scaling: null, pretraining_tp: 1 },
    config: { ...plain, hiddenSize: 40, intermediateSize: 53, heads: 4, kvHeads: 4, headSize: 10, vocabSize: 61 },
    dtype: 'F16',
    shards: 1,
  },
  {
    // A first context so short that within twenty tokens some pairs are kept, some blended and some stretched.
    name: 'llama-3',
    json: {
      model_type: 'llama',
      rope_theta: 500,
      rope_scaling: {
        rope_type: 'llama3',
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 16,
      },
    },
    config: {
      ...plain,
      hiddenSize: 33,
      intermediateSize: 47,
      heads: 4,
      kvHeads: 2,
      headSize: 64,
      vocabSize: 71,
      ropeTheta: 500,
      ropeScaling: {
        kind: 'llama3',
        factor: 8,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalMaxPositions: 16,
      },
      tiedEmbeddings: true,
      eosTokenIds: [2, 5, 7],
    },
    dtype: 'BF16',
    shards: 3,
  },
  {
    name: 'llama-linear',
    json: { model_type: 'llama', rope_scaling: { type: 'linear', factor: 2.5 } },
    config: {
      ...plain,
      hiddenSize: 27,
      intermediateSize: 31,
      heads: 6,
      kvHeads: 1,
      headSize: 80,
      vocabSize: 37,
      ropeScaling: { kind: 'linear', factor: 2.5 },
    },
    dtype: 'F32',
    shards: 1,
  },
  {
    // As transformers 5 writes it: rope_parameters in place of rope_theta.
    name: 'smollm2',
    json: { model_type: 'llama', rope_parameters: { rope_type: 'default', rope_theta: 100_000 } },
    config: {
      ...plain,
      hiddenSize: 30,
      intermediateSize: 41,
      heads: 3,
      kvHeads: 1,
      headSize: 64,
      vocabSize: 83,
      ropeTheta: 100_000,
      tiedEmbeddings: true,
    },
    dtype: 'BF16',
    shards: 1,
  },
  {
    name: 'tinyllama',
    json: { model_type: 'llama', rope_theta: 10_000 },
    config: { ...plain, hiddenSize: 25, intermediateSize: 37, heads: 8, kvHeads: 1, headSize: 64, vocabSize: 59 },
    dtype: 'F32',
    shards: 2,
  },
  {
    name: 'mistral',
    json: { model_type: 'mistral', rope_theta: 10_000, sliding_window: 5 },
    config: {
      ...plain,
      architecture: 'MistralForCausalLM',
      hiddenSize: 29,
      intermediateSize: 43,
      heads: 4,
      kvHeads: 1,
      headSize: 128,
      vocabSize: 67,
      windows: [5, 5],
    },
    dtype: 'BF16',
    shards: 2,
  },
  {
    // The window is written down and turned off, as in the published small ones.
    name: 'qwen2',
    json: {
      model_type: 'qwen2',
      rope_theta: 1_000_000,
      sliding_window: 4,
      use_sliding_window: false,
      max_window_layers: 1,
    },
    config: {
      ...plain,
      architecture: 'Qwen2ForCausalLM',
      hiddenSize: 35,
      intermediateSize: 49,
      heads: 7,
      kvHeads: 1,
      headSize: 64,
      vocabSize: 73,
      normEpsilon: 1e-6,
      ropeTheta: 1_000_000,
      biases: ['q_proj', 'k_proj', 'v_proj'],
      tiedEmbeddings: true,
    },
    dtype: 'BF16',
    shards: 1,
  },
  {
    // The one with sizes that divide by four.
    name: 'qwen2-window',
    json: {
      model_type: 'qwen2',
      rope_theta: 10_000,
      sliding_window: 4,
      use_sliding_window: true,
      max_window_layers: 1,
    },
    config: {
      ...plain,
      architecture: 'Qwen2ForCausalLM',
      hiddenSize: 24,
      intermediateSize: 36,
      layers: 3,
      heads: 4,
      kvHeads: 2,
      headSize: 4,
      vocabSize: 44,
      normEpsilon: 1e-6,
      biases: ['q_proj', 'k_proj', 'v_proj'],
      windows: [null, 4, 4],
    },
    dtype: 'F16',
    shards: 1,
  },
  {
    // Heads wider than the hidden size divides into, with norms of their own; no head_dim, which is 128 here.
    name: 'qwen3',
    json: { model_type: 'qwen3', rope_theta: 1_000_000, attention_bias: false, sliding_window: null },
    config: {
      ...plain,
      architecture: 'Qwen3ForCausalLM',
      hiddenSize: 45,
      intermediateSize: 51,
      heads: 3,
      kvHeads: 3,
      headSize: 128,
      vocabSize: 79,
      normEpsilon: 1e-6,
      ropeTheta: 1_000_000,
      queryKeyNorm: true,
      tiedEmbeddings: true,
    },
    dtype: 'BF16',
    shards: 2,
  },
  {
    name: 'llama-biases',
    json: { model_type: 'llama', rope_theta: 20, attention_bias: true, mlp_bias: true },
    config: {
      ...plain,
      hiddenSize: 21,
      intermediateSize: 55,
      heads: 5,
      kvHeads: 1,
      headSize: 96,
      vocabSize: 53,
      normEpsilon: 1e-3,
      ropeTheta: 20,
      biases: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    },
    dtype: 'F32',
    shards: 1,
  },
];

/** Keys a family's config.json leaves out since they follow from others. */
const LEFT_OUT: Readonly<Record<string, readonly string[]>> = {
  'llama-2': ['head_dim', 'num_key_value_heads'],
  qwen3: ['head_dim'],
};

/** The text of a family's config.json. */
export function configText({ name, json, config }: Family): string {
  const sizes = {
    architectures: [config.architecture],
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headSize,
    vocab_size: config.vocabSize,
    max_position_embeddings: config.maxPositions,
    rms_norm_eps: config.normEpsilon,
    hidden_act: 'silu',
    tie_word_embeddings: config.tiedEmbeddings,
    bos_token_id: config.bosTokenId,
    eos_token_id: config.eosTokenIds.length === 1 ? config.eosTokenIds[0] : config.eosTokenIds,
  };
  const kept = Object.entries(sizes).filter(([key]) => !LEFT_OUT[name]?.includes(key));
  return JSON.stringify({ ...Object.fromEntries(kept), ...json }, null, 2);
}
