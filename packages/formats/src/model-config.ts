// config.json of a Hugging Face checkpoint, and the tensors it promises. What the trainer cannot do is refused by name.
import { z } from 'zod';
import { FormatError } from './errors.ts';

/** The seven projections of a Llama block that LoRA may adapt, in the order data passes them. */
export const PROJECTIONS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;
export type Projection = (typeof PROJECTIONS)[number];

/** Families whose blocks the trainer computes. They differ in biases, norms of queries and keys, and attention windows. */
export const ARCHITECTURES = [
  'LlamaForCausalLM',
  'MistralForCausalLM',
  'Qwen2ForCausalLM',
  'Qwen3ForCausalLM',
] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

/** How the frequencies of the rotary embedding are stretched for longer contexts. */
export type RopeScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositions: number;
    };

export interface ModelConfig {
  readonly architecture: Architecture;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly normEpsilon: number;
  readonly ropeTheta: number;
  /** null: the plain rotary embedding. */
  readonly ropeScaling: RopeScaling | null;
  /** Projections that add a bias vector [out], named `….bias` beside `….weight`. */
  readonly biases: readonly Projection[];
  /** RMSNorm over each head of q and k before they are rotated (`self_attn.q_norm.weight`, `k_norm.weight`, both [headSize]). */
  readonly queryKeyNorm: boolean;
  /** For each layer: how many tokens back a query sees, itself included; null for all of them. */
  readonly windows: readonly (number | null)[];
  readonly tiedEmbeddings: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}

const size = z.int().positive();

const ropeSchema = z
  .looseObject({
    rope_type: z.string().optional(),
    type: z.string().optional(),
    rope_theta: z.number().positive().optional(),
    partial_rotary_factor: z.number().optional(),
  })
  .nullish();

const llamaSchema = z.object({
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  vocab_size: size,
  max_position_embeddings: size.default(2048),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeSchema,
  // Where transformers 5 keeps what was rope_theta and rope_scaling.
  rope_parameters: ropeSchema,
  quantization_config: z.unknown().optional(),
  hidden_act: z.string().default('silu'),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(false),
  bos_token_id: z.int().nullish(),
  eos_token_id: z.union([z.int(), z.array(z.int())]).nullish(),
});

const unsupported = (what: string): FormatError =>
  new FormatError(
    'unsupported-architecture',
    `${what} is not supported. Use a Llama-architecture checkpoint without it.`,
  );

/** Parses the text of config.json. Throws FormatError 'model-config' or 'unsupported-architecture'. */
export function parseModelConfig(text: string): ModelConfig {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new FormatError('model-config', 'config.json is not JSON; fetch it again.', { cause });
  }
  const named = z.object({ architectures: z.array(z.string()).min(1) }).safeParse(document);
  if (!named.success)
    throw new FormatError('model-config', 'config.json names no architecture.', { cause: named.error });
  const architecture = named.data.architectures[0];
  if (architecture !== 'LlamaForCausalLM') throw unsupported(`Architecture ${architecture}`);
  const parsed = llamaSchema.safeParse(document);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new FormatError('model-config', `config.json: ${issue?.path.join('.')}: ${issue?.message}.`, {
      cause: parsed.error,
    });
  }
  const config = parsed.data;
  for (const key of ['rope_scaling', 'rope_parameters'] as const) {
    const rope = config[key];
    const kind = rope?.rope_type ?? rope?.type ?? 'default';
    if (kind !== 'default') throw unsupported(`Scaled rotary embedding (${key} of type ${kind})`);
    if ((rope?.partial_rotary_factor ?? 1) !== 1) throw unsupported(`Partial rotary embedding (${key})`);
  }
  if (config.quantization_config) throw unsupported('Quantised weights (quantization_config)');
  if (config.hidden_act !== 'silu') throw unsupported(`Activation ${config.hidden_act}`);
  if (config.attention_bias) throw unsupported('Bias in attention (attention_bias)');
  if (config.mlp_bias) throw unsupported('Bias in the feed-forward block (mlp_bias)');
  const kvHeads = config.num_key_value_heads ?? config.num_attention_heads;
  const headSize = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  if (!Number.isInteger(headSize) || headSize % 2 !== 0) {
    throw new FormatError(
      'model-config',
      `config.json: a head of ${headSize} elements cannot be rotated; it must be an even number.`,
    );
  }
  if (config.num_attention_heads % kvHeads !== 0) {
    throw new FormatError(
      'model-config',
      `config.json: ${config.num_attention_heads} heads cannot share ${kvHeads} key-value heads.`,
    );
  }
  const eos = config.eos_token_id ?? [];
  return {
    architecture: 'LlamaForCausalLM',
    hiddenSize: config.hidden_size,
    intermediateSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    kvHeads,
    headSize,
    vocabSize: config.vocab_size,
    maxPositions: config.max_position_embeddings,
    normEpsilon: config.rms_norm_eps,
    ropeTheta: config.rope_theta ?? config.rope_parameters?.rope_theta ?? 10_000,
    ropeScaling: null,
    biases: [],
    queryKeyNorm: false,
    windows: Array.from({ length: config.num_hidden_layers }, () => null),
    tiedEmbeddings: config.tie_word_embeddings,
    bosTokenId: config.bos_token_id ?? null,
    eosTokenIds: typeof eos === 'number' ? [eos] : eos,
  };
}

/** A linear layer that LoRA may adapt. `module` is its Hugging Face name, its weight is [out, in]. */
export interface LoraTarget {
  readonly module: string;
  readonly projection: Projection;
  readonly layer: number;
  readonly in: number;
  readonly out: number;
}

/** The adaptable layers of these projections, layer by layer. */
export function loraTargets(config: ModelConfig, projections: readonly Projection[] = PROJECTIONS): LoraTarget[] {
  const { hiddenSize, intermediateSize } = config;
  const query = config.heads * config.headSize;
  const key = config.kvHeads * config.headSize;
  const sizes: Record<Projection, { block: string; in: number; out: number }> = {
    q_proj: { block: 'self_attn', in: hiddenSize, out: query },
    k_proj: { block: 'self_attn', in: hiddenSize, out: key },
    v_proj: { block: 'self_attn', in: hiddenSize, out: key },
    o_proj: { block: 'self_attn', in: query, out: hiddenSize },
    gate_proj: { block: 'mlp', in: hiddenSize, out: intermediateSize },
    up_proj: { block: 'mlp', in: hiddenSize, out: intermediateSize },
    down_proj: { block: 'mlp', in: intermediateSize, out: hiddenSize },
  };
  const chosen = PROJECTIONS.filter((projection) => projections.includes(projection));
  return Array.from({ length: config.layers }, (_, layer) =>
    chosen.map((projection) => {
      const { block, ...shape } = sizes[projection];
      return { module: `model.layers.${layer}.${block}.${projection}`, projection, layer, ...shape };
    }),
  ).flat();
}

/** Every tensor the checkpoint must hold, with its shape. */
export function modelTensors(config: ModelConfig): { name: string; shape: number[] }[] {
  const { hiddenSize, vocabSize, layers } = config;
  const norms = Array.from({ length: layers }, (_, layer) => [
    { name: `model.layers.${layer}.input_layernorm.weight`, shape: [hiddenSize] },
    { name: `model.layers.${layer}.post_attention_layernorm.weight`, shape: [hiddenSize] },
  ]).flat();
  return [
    { name: 'model.embed_tokens.weight', shape: [vocabSize, hiddenSize] },
    ...loraTargets(config).map(({ module, in: columns, out }) => ({ name: `${module}.weight`, shape: [out, columns] })),
    ...norms,
    { name: 'model.norm.weight', shape: [hiddenSize] },
    ...(config.tiedEmbeddings ? [] : [{ name: 'lm_head.weight', shape: [vocabSize, hiddenSize] }]),
  ];
}

/** Number of parameters of the checkpoint, a tied head counted once. */
export const parameterCount = (config: ModelConfig): number =>
  modelTensors(config).reduce((sum, { shape }) => sum + shape.reduce((product, length) => product * length, 1), 0);
