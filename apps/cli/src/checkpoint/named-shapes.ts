// The shapes of well-known open models, as their published config.json files state them. Weights are not here: a checkpoint
// of such a shape with random weights costs what the real one costs, which is all that tests and benchmarks need.

/** The fields of a config.json that a decoder is built from. */
export interface ShapeConfig {
  readonly architectures: readonly [string];
  readonly model_type: string;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly tie_word_embeddings: boolean;
  /** Standard deviation of fresh matrices. */
  readonly initializer_range: number;
  readonly [field: string]: unknown;
}

export interface NamedShape {
  readonly name: string;
  /** Where the config.json was published. */
  readonly source: string;
  readonly config: ShapeConfig;
}

/** hidden, feed-forward, layers, heads, key-value heads, vocabulary, context. */
type Sizes = readonly [number, number, number, number, number, number, number];

const sizes = ([hidden, feedForward, layers, heads, kvHeads, vocabulary, context]: Sizes) => ({
  hidden_size: hidden,
  intermediate_size: feedForward,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: kvHeads,
  vocab_size: vocabulary,
  max_position_embeddings: context,
  hidden_act: 'silu',
  initializer_range: 0.02,
});

const llama = (
  shape: Sizes,
  more: Readonly<Record<string, unknown>> & { tie_word_embeddings: boolean },
): ShapeConfig => ({
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  ...sizes(shape),
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  rope_scaling: null,
  attention_bias: false,
  mlp_bias: false,
  bos_token_id: 1,
  eos_token_id: 2,
  ...more,
});

const smollm2 = (shape: Sizes, more: Readonly<Record<string, unknown>>): ShapeConfig =>
  llama(shape, { rope_theta: 100_000, bos_token_id: 0, eos_token_id: 0, tie_word_embeddings: true, ...more });

const llama32 = (shape: Sizes, headSize: number): ShapeConfig =>
  llama(shape, {
    head_dim: headSize,
    rope_theta: 500_000,
    rope_scaling: {
      factor: 32,
      high_freq_factor: 4,
      low_freq_factor: 1,
      original_max_position_embeddings: 8192,
      rope_type: 'llama3',
    },
    bos_token_id: 128_000,
    eos_token_id: 128_001,
    tie_word_embeddings: true,
  });

const mistral = (shape: Sizes): ShapeConfig => ({
  architectures: ['MistralForCausalLM'],
  model_type: 'mistral',
  ...sizes(shape),
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  sliding_window: 4096,
  bos_token_id: 1,
  eos_token_id: 2,
  tie_word_embeddings: false,
});

/** Qwen 2.5 states a window that it does not use. */
const qwen25 = (shape: Sizes): ShapeConfig => ({
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  ...sizes(shape),
  rms_norm_eps: 1e-6,
  rope_theta: 1_000_000,
  sliding_window: shape[6],
  use_sliding_window: false,
  max_window_layers: shape[2],
  bos_token_id: 151_643,
  eos_token_id: 151_643,
  tie_word_embeddings: true,
});

const qwen3 = (shape: Sizes): ShapeConfig => ({
  architectures: ['Qwen3ForCausalLM'],
  model_type: 'qwen3',
  ...sizes(shape),
  head_dim: 128,
  rms_norm_eps: 1e-6,
  rope_theta: 1_000_000,
  rope_scaling: null,
  attention_bias: false,
  sliding_window: null,
  use_sliding_window: false,
  max_window_layers: shape[2],
  bos_token_id: 151_643,
  eos_token_id: 151_645,
  tie_word_embeddings: true,
});

/** From the smallest to the largest. */
export const NAMED_SHAPES: readonly NamedShape[] = [
  {
    name: 'stories260k',
    source: 'karpathy/tinyllamas',
    config: llama([64, 172, 5, 8, 4, 512, 512], { tie_word_embeddings: true }),
  },
  {
    name: 'stories15m',
    source: 'karpathy/tinyllamas',
    config: llama([288, 768, 6, 6, 6, 32_000, 256], { tie_word_embeddings: true }),
  },
  {
    name: 'stories110m',
    source: 'karpathy/tinyllamas',
    config: llama([768, 2048, 12, 12, 12, 32_000, 1024], { tie_word_embeddings: true }),
  },
  {
    name: 'smollm2-135m',
    source: 'HuggingFaceTB/SmolLM2-135M',
    config: smollm2([576, 1536, 30, 9, 3, 49_152, 8192], { initializer_range: 1 / 24 }),
  },
  {
    name: 'smollm2-360m',
    source: 'HuggingFaceTB/SmolLM2-360M',
    config: smollm2([960, 2560, 32, 15, 5, 49_152, 8192], {}),
  },
  {
    name: 'qwen2.5-0.5b',
    source: 'Qwen/Qwen2.5-0.5B',
    config: qwen25([896, 4864, 24, 14, 2, 151_936, 32_768]),
  },
  { name: 'qwen3-0.6b', source: 'Qwen/Qwen3-0.6B', config: qwen3([1024, 3072, 28, 16, 8, 151_936, 40_960]) },
  {
    name: 'tinyllama-1.1b',
    source: 'TinyLlama/TinyLlama-1.1B-Chat-v1.0',
    config: llama([2048, 5632, 22, 32, 4, 32_000, 2048], { tie_word_embeddings: false }),
  },
  {
    name: 'llama-3.2-1b',
    source: 'meta-llama/Llama-3.2-1B',
    config: llama32([2048, 8192, 16, 32, 8, 128_256, 131_072], 64),
  },
  {
    name: 'qwen2.5-1.5b',
    source: 'Qwen/Qwen2.5-1.5B',
    config: qwen25([1536, 8960, 28, 12, 2, 151_936, 131_072]),
  },
  {
    name: 'smollm2-1.7b',
    source: 'HuggingFaceTB/SmolLM2-1.7B',
    config: smollm2([2048, 8192, 24, 32, 32, 49_152, 8192], { rope_theta: 130_000 }),
  },
  {
    name: 'llama-3.2-3b',
    source: 'meta-llama/Llama-3.2-3B',
    config: llama32([3072, 8192, 28, 24, 8, 128_256, 131_072], 128),
  },
  {
    name: 'llama-2-7b',
    source: 'meta-llama/Llama-2-7b-hf',
    config: llama([4096, 11_008, 32, 32, 32, 32_000, 4096], { tie_word_embeddings: false }),
  },
  {
    name: 'mistral-7b',
    source: 'mistralai/Mistral-7B-v0.1',
    config: mistral([4096, 14_336, 32, 32, 8, 32_000, 32_768]),
  },
];
