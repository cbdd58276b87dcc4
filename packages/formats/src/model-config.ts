// config.json of a Hugging Face checkpoint: the families the trainer computes, with each family's own defaults for keys that
// are left out (transformers, configuration_<family>.py). What the trainer cannot do is refused by name, never approximated.
import { z } from 'zod';
import { FormatError, unsupportedModel } from './errors.ts';
import { parseRope, type RopeScaling, ropeFields } from './model-rope.ts';

export type { RopeScaling } from './model-rope.ts';

/** The seven projections of a block that LoRA may adapt, in the order data passes them. */
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
/** Some tools write a default out as null. */
const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);

const configSchema = z.object({
  ...ropeFields,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  vocab_size: size,
  max_position_embeddings: size.optional(),
  rms_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.string().default('silu'),
  attention_bias: flag,
  mlp_bias: flag,
  sliding_window: size.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().nonnegative().default(28),
  layer_types: z.array(z.string()).nullish(),
  tie_word_embeddings: flag,
  bos_token_id: z.int().nonnegative().nullish(),
  eos_token_id: z.union([z.int().nonnegative(), z.array(z.int().nonnegative())]).nullish(),
  auto_map: z.record(z.string(), z.unknown()).nullish(),
});
type Config = z.output<typeof configSchema>;

interface Family {
  readonly maxPositions: number;
  /** null: as many as query heads. */
  readonly kvHeads: number | null;
  /** null: hidden size / heads. */
  readonly headSize: number | null;
  readonly slidingWindow: number | null;
  readonly bos: number | null;
  readonly eos: number | null;
}

const FAMILIES: Readonly<Record<Architecture, Family>> = {
  LlamaForCausalLM: { maxPositions: 2048, kvHeads: null, headSize: null, slidingWindow: null, bos: 1, eos: 2 },
  MistralForCausalLM: { maxPositions: 131_072, kvHeads: 8, headSize: null, slidingWindow: 4096, bos: 1, eos: 2 },
  Qwen2ForCausalLM: { maxPositions: 32_768, kvHeads: 32, headSize: null, slidingWindow: 4096, bos: null, eos: null },
  Qwen3ForCausalLM: { maxPositions: 32_768, kvHeads: 32, headSize: 128, slidingWindow: 4096, bos: null, eos: null },
};

/** The family's value when the key is absent. An explicit null is kept: it means something else. */
const orDefault = <T>(value: T | null | undefined, whenAbsent: T | null): T | null =>
  value === undefined ? whenAbsent : value;

/** Features of relatives of these families. A checkpoint that turns one on is not what its architecture's name says. */
const FEATURES: Readonly<Record<string, string>> = {
  quantization_config: 'Quantised weights',
  compression_config: 'Quantised weights',
  num_local_experts: 'A mixture of experts',
  num_experts: 'A mixture of experts',
  n_routed_experts: 'A mixture of experts',
  use_mrope: 'A rotary embedding of several axes',
  use_qk_norm: 'Normalisation of queries and keys that is not Qwen3’s',
  qk_layernorm: 'Normalisation of queries and keys that is not Qwen3’s',
};

function refuseFeatures(document: object, config: Config): void {
  for (const [name, value] of Object.entries(document)) {
    const feature = Object.hasOwn(FEATURES, name) ? FEATURES[name] : undefined;
    if (feature !== undefined && value) throw unsupportedModel(`${feature} (${name})`);
  }
  if (config.hidden_act !== 'silu' && config.hidden_act !== 'swish')
    throw unsupportedModel(`Activation ${config.hidden_act} (hidden_act)`);
  if (config.auto_map && Object.keys(config.auto_map).some((name) => name.startsWith('AutoModel')))
    throw unsupportedModel('Model code of its own (auto_map)');
}

const PROJECTIONS_OF_ATTENTION: readonly Projection[] = ['q_proj', 'k_proj', 'v_proj', 'o_proj'];
const PROJECTIONS_OF_MLP: readonly Projection[] = ['gate_proj', 'up_proj', 'down_proj'];

function biasesOf(architecture: Architecture, config: Config): Projection[] {
  if (config.mlp_bias && architecture !== 'LlamaForCausalLM')
    throw unsupportedModel(`Bias in the feed-forward block of ${architecture} (mlp_bias)`);
  if (config.attention_bias && architecture === 'MistralForCausalLM')
    throw unsupportedModel(`Bias in the attention of ${architecture} (attention_bias)`);
  // Qwen2 has these three whatever attention_bias says; transformers does not look at it either.
  if (architecture === 'Qwen2ForCausalLM') return ['q_proj', 'k_proj', 'v_proj'];
  return [...(config.attention_bias ? PROJECTIONS_OF_ATTENTION : []), ...(config.mlp_bias ? PROJECTIONS_OF_MLP : [])];
}

/** The window of the layers that have one; null where none has. */
function windowOf(architecture: Architecture, config: Config): number | null {
  const given = orDefault(config.sliding_window, FAMILIES[architecture].slidingWindow);
  // Mistral's has no switch; Qwen's is off unless switched on; Llama has none.
  if (architecture === 'MistralForCausalLM') return given;
  if (architecture !== 'LlamaForCausalLM') return config.use_sliding_window === true ? given : null;
  if (given !== null && config.use_sliding_window !== false)
    throw unsupportedModel(`A sliding window in ${architecture} (sliding_window)`);
  return null;
}

function windowsOf(architecture: Architecture, config: Config): (number | null)[] {
  const window = windowOf(architecture, config);
  // transformers computes all layers of the others alike, whatever layer_types says.
  const mayMix = architecture === 'Qwen2ForCausalLM' || architecture === 'Qwen3ForCausalLM';
  const usual = Array.from({ length: config.num_hidden_layers }, (_, layer) =>
    mayMix && layer < config.max_window_layers ? null : window,
  );
  const types = config.layer_types;
  if (!types) return usual;
  const fail = (what: string): never => {
    throw new FormatError('model-config', `config.json: layer_types ${what}.`);
  };
  if (types.length !== usual.length)
    fail(`names ${types.length} layers, but num_hidden_layers is ${config.num_hidden_layers}`);
  const windows = types.map((type) => {
    if (type === 'full_attention') return null;
    if (type !== 'sliding_attention') throw unsupportedModel(`A layer of type ${type} (layer_types)`);
    return window ?? fail('has sliding_attention, but no sliding_window is in use');
  });
  if (!mayMix && windows.some((value, layer) => value !== usual[layer]))
    throw unsupportedModel(`layer_types that differ from sliding_window in ${architecture}`);
  return windows;
}

function sizesOf(architecture: Architecture, config: Config): { kvHeads: number; headSize: number } {
  const family = FAMILIES[architecture];
  const heads = config.num_attention_heads;
  const kvHeads = orDefault(config.num_key_value_heads, family.kvHeads) ?? heads;
  const headSize = orDefault(config.head_dim, family.headSize) ?? config.hidden_size / heads;
  if (!Number.isInteger(headSize) || headSize % 2 !== 0) {
    throw new FormatError(
      'model-config',
      `config.json: a head of ${headSize} elements cannot be rotated; it must be an even number.`,
    );
  }
  if (heads % kvHeads !== 0) {
    throw new FormatError('model-config', `config.json: ${heads} heads cannot share ${kvHeads} key-value heads.`);
  }
  return { kvHeads, headSize };
}

function parseJson(text: string): object {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new FormatError('model-config', 'config.json is not JSON; fetch it again.', { cause });
  }
  if (typeof document === 'object' && document !== null) return document;
  throw new FormatError('model-config', 'config.json is not a JSON object; fetch it again.');
}

function architectureOf(document: object): Architecture {
  const named = z.object({ architectures: z.array(z.string()).min(1) }).safeParse(document);
  if (!named.success)
    throw new FormatError('model-config', 'config.json names no architecture.', { cause: named.error });
  const name = named.data.architectures[0];
  const architecture = ARCHITECTURES.find((known) => known === name);
  if (architecture) return architecture;
  throw new FormatError(
    'unsupported-architecture',
    `Architecture ${name} is not supported; supported are ${ARCHITECTURES.join(', ')}.`,
  );
}

/** Parses the text of config.json. Throws FormatError 'model-config' or 'unsupported-architecture'. */
export function parseModelConfig(text: string): ModelConfig {
  const document = parseJson(text);
  const architecture = architectureOf(document);
  const parsed = configSchema.safeParse(document);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new FormatError('model-config', `config.json: ${issue?.path.join('.')}: ${issue?.message}.`, {
      cause: parsed.error,
    });
  }
  const config = parsed.data;
  refuseFeatures(document, config);
  const family = FAMILIES[architecture];
  const rope = parseRope(config);
  const eos = orDefault<number | number[]>(config.eos_token_id, family.eos) ?? [];
  return {
    architecture,
    hiddenSize: config.hidden_size,
    intermediateSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    ...sizesOf(architecture, config),
    vocabSize: config.vocab_size,
    maxPositions: config.max_position_embeddings ?? family.maxPositions,
    normEpsilon: config.rms_norm_eps,
    ropeTheta: rope.theta,
    ropeScaling: rope.scaling,
    biases: biasesOf(architecture, config),
    queryKeyNorm: architecture === 'Qwen3ForCausalLM',
    windows: windowsOf(architecture, config),
    tiedEmbeddings: config.tie_word_embeddings,
    bosTokenId: orDefault(config.bos_token_id, family.bos),
    eosTokenIds: typeof eos === 'number' ? [eos] : eos,
  };
}
