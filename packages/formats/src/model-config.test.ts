import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Architecture, type ModelConfig, parseModelConfig } from './model-config.ts';

const text = readFileSync(new URL('../../../assets/models/stories260K/config.json', import.meta.url), 'utf8');
const plain: Record<string, unknown> = JSON.parse(text);
const withOptions = (options: object) => parseModelConfig(JSON.stringify({ ...plain, ...options }));
const inFamily = (architecture: Architecture) => (options: object) =>
  withOptions({ architectures: [architecture], ...options });
const mistral = inFamily('MistralForCausalLM');
const qwen2 = inFamily('Qwen2ForCausalLM');
const qwen3 = inFamily('Qwen3ForCausalLM');

const without = (...keys: string[]): Record<string, unknown> =>
  Object.fromEntries(Object.entries(plain).filter(([key]) => !keys.includes(key)));

describe('parseModelConfig', () => {
  it('reads a Llama checkpoint', () => {
    expect(parseModelConfig(text)).toEqual({
      architecture: 'LlamaForCausalLM',
      hiddenSize: 64,
      intermediateSize: 172,
      layers: 5,
      heads: 8,
      kvHeads: 4,
      headSize: 8,
      vocabSize: 512,
      maxPositions: 512,
      normEpsilon: 1e-5,
      ropeTheta: 10_000,
      ropeScaling: null,
      biases: [],
      queryKeyNorm: false,
      windows: [null, null, null, null, null],
      tiedEmbeddings: true,
      bosTokenId: 1,
      eosTokenIds: [2],
    });
  });

  const optional = [
    'num_key_value_heads',
    'head_dim',
    'max_position_embeddings',
    'rms_norm_eps',
    'rope_theta',
    'hidden_act',
    'attention_bias',
    'mlp_bias',
    'tie_word_embeddings',
    'bos_token_id',
    'eos_token_id',
  ];
  const common = { normEpsilon: 1e-6, ropeTheta: 10_000, ropeScaling: null, tiedEmbeddings: false };
  const defaults: [Architecture, number, Partial<ModelConfig>][] = [
    ['LlamaForCausalLM', 8, { kvHeads: 8, headSize: 8, maxPositions: 2048, bosTokenId: 1, eosTokenIds: [2] }],
    ['MistralForCausalLM', 8, { kvHeads: 8, headSize: 8, maxPositions: 131_072, bosTokenId: 1, eosTokenIds: [2] }],
    ['Qwen2ForCausalLM', 32, { kvHeads: 32, headSize: 2, maxPositions: 32_768, bosTokenId: null, eosTokenIds: [] }],
    ['Qwen3ForCausalLM', 32, { kvHeads: 32, headSize: 128, maxPositions: 32_768, bosTokenId: null, eosTokenIds: [] }],
  ];
  it.each(defaults)('fills in what a config.json of %s leaves out', (architecture, heads, expected) => {
    const least = { ...without(...optional), architectures: [architecture], num_attention_heads: heads };
    expect(parseModelConfig(JSON.stringify(least))).toMatchObject({ ...common, ...expected });
  });

  it('keeps an explicit null apart from a key left out', () => {
    expect(withOptions({ bos_token_id: null, eos_token_id: null })).toMatchObject({
      bosTokenId: null,
      eosTokenIds: [],
    });
    expect(mistral({ num_key_value_heads: null, sliding_window: null })).toMatchObject({
      kvHeads: 8,
      windows: [null, null, null, null, null],
    });
    expect(qwen3({ head_dim: null }).headSize).toBe(8);
    expect(withOptions({ attention_bias: null, tie_word_embeddings: null })).toMatchObject({
      biases: [],
      tiedEmbeddings: false,
    });
    expect(withOptions({ eos_token_id: [2, 7] }).eosTokenIds).toEqual([2, 7]);
  });

  it('reads which projections have biases', () => {
    const attention = ['q_proj', 'k_proj', 'v_proj', 'o_proj'];
    const mlp = ['gate_proj', 'up_proj', 'down_proj'];
    expect(withOptions({ attention_bias: true }).biases).toEqual(attention);
    expect(withOptions({ mlp_bias: true }).biases).toEqual(mlp);
    expect(withOptions({ attention_bias: true, mlp_bias: true }).biases).toEqual([...attention, ...mlp]);
    for (const attention_bias of [undefined, false, true])
      expect(qwen2({ attention_bias }).biases).toEqual(['q_proj', 'k_proj', 'v_proj']);
    expect(qwen3({}).biases).toEqual([]);
    expect(qwen3({ attention_bias: true }).biases).toEqual(attention);
    expect(mistral({}).biases).toEqual([]);
  });

  it('gives queries and keys a norm in Qwen3 only', () => {
    expect(qwen3({}).queryKeyNorm).toBe(true);
    expect([withOptions({}), mistral({}), qwen2({})].map((config) => config.queryKeyNorm)).toEqual([
      false,
      false,
      false,
    ]);
  });

  it('takes silu by its other name', () => {
    expect(withOptions({ hidden_act: 'swish' })).toEqual(withOptions({}));
  });
});

describe('attention windows', () => {
  const all = (window: number | null) => Array.from({ length: 5 }, () => window);

  it('are on every layer of Mistral, 4096 unless it says otherwise', () => {
    expect(mistral({}).windows).toEqual(all(4096));
    expect(mistral({ sliding_window: 7, use_sliding_window: false }).windows).toEqual(all(7));
    expect(mistral({ sliding_window: null }).windows).toEqual(all(null));
    expect(mistral({ sliding_window: 7, layer_types: all(7).map(() => 'sliding_attention') }).windows).toEqual(all(7));
  });

  it.each([
    ['Qwen2', qwen2],
    ['Qwen3', qwen3],
  ])('are off in %s unless switched on, and then from max_window_layers on', (_, parse) => {
    expect(parse({ sliding_window: 7, max_window_layers: 0 }).windows).toEqual(all(null));
    expect(parse({ use_sliding_window: true, sliding_window: 7 }).windows).toEqual(all(null));
    const three = { use_sliding_window: true, sliding_window: 7, max_window_layers: 3 };
    expect(parse(three).windows).toEqual([null, null, null, 7, 7]);
    const full = 'full_attention';
    const sliding = 'sliding_attention';
    expect(parse({ ...three, layer_types: [sliding, full, sliding, full, full] }).windows).toEqual([
      7,
      null,
      7,
      null,
      null,
    ]);
  });

  it('are none in Llama', () => {
    expect(withOptions({ layer_types: all(null).map(() => 'full_attention') }).windows).toEqual(all(null));
    expect(withOptions({ sliding_window: 7, use_sliding_window: false }).windows).toEqual(all(null));
  });
});

describe('the rotary embedding', () => {
  const llama3 = {
    rope_type: 'llama3',
    factor: 32,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const stretched = {
    kind: 'llama3',
    factor: 32,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalMaxPositions: 8192,
  };

  it('is found under either key, by either name of its type', () => {
    expect(withOptions({ rope_scaling: llama3 }).ropeScaling).toEqual(stretched);
    expect(withOptions({ rope_parameters: { ...llama3, rope_theta: 500_000 } })).toMatchObject({
      ropeScaling: stretched,
      ropeTheta: 500_000,
    });
    expect(withOptions({ rope_scaling: { type: 'linear', factor: 2.5 } }).ropeScaling).toEqual({
      kind: 'linear',
      factor: 2.5,
    });
    expect(withOptions({ rope_scaling: llama3, rope_parameters: llama3 }).ropeScaling).toEqual(stretched);
    expect(withOptions({ rope_scaling: null, rope_parameters: {} }).ropeScaling).toBeNull();
    expect(withOptions({ rope_scaling: { type: 'default' } }).ropeScaling).toBeNull();
  });

  it('has its base where transformers 5 writes it, else where 4 did', () => {
    const rope_parameters = { rope_type: 'default', rope_theta: 500_000 };
    expect(withOptions({ rope_parameters }).ropeTheta).toBe(500_000);
    expect(withOptions({ rope_theta: 1e6 }).ropeTheta).toBe(1e6);
  });

  it('takes the original context from beside it when it is not within', () => {
    const { original_max_position_embeddings: within, ...rest } = llama3;
    expect(withOptions({ rope_scaling: rest, original_max_position_embeddings: within }).ropeScaling).toEqual(
      stretched,
    );
  });

  const wrong: [string, object, string, RegExp][] = [
    ['without a factor', { rope_scaling: { type: 'linear' } }, 'model-config', /rope_scaling\.factor/],
    ['by zero', { rope_scaling: { type: 'linear', factor: 0 } }, 'model-config', /rope_scaling\.factor/],
    [
      'without a context',
      { rope_parameters: { ...llama3, original_max_position_embeddings: undefined } },
      'model-config',
      /rope_parameters\.original_max_position_embeddings/,
    ],
    [
      'whose bands cross',
      { rope_scaling: { ...llama3, high_freq_factor: 1 } },
      'model-config',
      /high_freq_factor: must be more/,
    ],
    [
      'said in two ways',
      { rope_scaling: llama3, rope_parameters: { ...llama3, factor: 8 } },
      'model-config',
      /rope_scaling and rope_parameters disagree/,
    ],
    [
      'by layer',
      { rope_parameters: { full_attention: { rope_type: 'default' } } },
      'unsupported-architecture',
      /each kind of layer \(rope_parameters\)/,
    ],
    ['in part', { partial_rotary_factor: 0.5 }, 'unsupported-architecture', /Partial rotary/],
    [
      'in part, inside',
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      'unsupported-architecture',
      /Partial rotary embedding \(rope_parameters\)/,
    ],
    ...['yarn', 'dynamic', 'longrope', 'ntk', 'mrope'].map((type): [string, object, string, RegExp] => [
      `of type ${type}`,
      { rope_scaling: { type, factor: 2 } },
      'unsupported-architecture',
      new RegExp(`rope_scaling of type ${type}`),
    ]),
  ];
  it.each(wrong)('is refused: scaled %s', (_, options, code, message) => {
    expect(() => withOptions(options)).toThrow(expect.objectContaining({ name: 'FormatError', code }));
    expect(() => withOptions(options)).toThrow(message);
  });
});

describe('a config.json that is refused by name', () => {
  const layers = (type: string, count = 5) => Array.from({ length: count }, () => type);
  const unsupported: [string, () => unknown, RegExp][] = [
    [
      'another architecture',
      () => withOptions({ architectures: ['GPT2LMHeadModel'] }),
      /GPT2LMHeadModel.*Qwen3ForCausalLM/,
    ],
    ['a mixture by architecture', () => withOptions({ architectures: ['MixtralForCausalLM'] }), /MixtralForCausalLM/],
    ['experts', () => withOptions({ num_local_experts: 8 }), /mixture of experts \(num_local_experts\)/],
    ['quantised weights', () => withOptions({ quantization_config: { bits: 4 } }), /quantization_config/],
    ['another activation', () => withOptions({ hidden_act: 'gelu' }), /Activation gelu/],
    ['another norm of queries', () => withOptions({ use_qk_norm: true }), /use_qk_norm/],
    ['code of its own', () => withOptions({ auto_map: { AutoModelForCausalLM: 'm.M' } }), /auto_map/],
    ['a window in Llama', () => withOptions({ sliding_window: 7 }), /sliding window in LlamaForCausalLM/],
    ['bias in Mistral’s attention', () => mistral({ attention_bias: true }), /attention of MistralForCausalLM/],
    ['bias in Mistral’s feed-forward', () => mistral({ mlp_bias: true }), /feed-forward block of MistralForCausalLM/],
    ['bias in Qwen2’s feed-forward', () => qwen2({ mlp_bias: true }), /feed-forward block of Qwen2ForCausalLM/],
    [
      'mixed layers in Mistral',
      () => mistral({ layer_types: [...layers('full_attention', 4), 'sliding_attention'] }),
      /MistralForCausalLM/,
    ],
    ['a foreign layer', () => qwen3({ layer_types: layers('linear_attention') }), /layer of type linear_attention/],
  ];
  it.each(unsupported)('%s', (_, parse, message) => {
    expect(parse).toThrow(expect.objectContaining({ name: 'FormatError', code: 'unsupported-architecture' }));
    expect(parse).toThrow(message);
  });

  const wrong: [string, () => unknown, RegExp][] = [
    ['no JSON', () => parseModelConfig('{'), /is not JSON/],
    ['no object', () => parseModelConfig('null'), /is not a JSON object/],
    ['no architecture', () => withOptions({ architectures: [] }), /names no architecture/],
    ['no list of architectures', () => withOptions({ architectures: undefined }), /names no architecture/],
    ['no size', () => withOptions({ hidden_size: undefined }), /hidden_size/],
    ['a fraction', () => withOptions({ num_hidden_layers: 2.5 }), /num_hidden_layers/],
    ['heads that do not divide', () => withOptions({ head_dim: null, hidden_size: 63 }), /7\.875 elements/],
    ['an odd head', () => withOptions({ head_dim: 7 }), /7 elements cannot be rotated/],
    ['key-value heads that do not divide', () => withOptions({ num_key_value_heads: 3 }), /8 heads cannot share 3/],
    [
      'too few layer types',
      () => qwen2({ layer_types: layers('full_attention', 4) }),
      /names 4 layers, but num_hidden_layers is 5/,
    ],
    [
      'a sliding layer without a window',
      () => qwen2({ layer_types: layers('sliding_attention') }),
      /no sliding_window is in use/,
    ],
    ['a window of nothing', () => mistral({ sliding_window: 0 }), /sliding_window/],
  ];
  it.each(wrong)('%s', (_, parse, message) => {
    expect(parse).toThrow(expect.objectContaining({ name: 'FormatError', code: 'model-config' }));
    expect(parse).toThrow(message);
  });

  it('is not refused for switches that are off, or code of its own for the tokenizer', () => {
    const off = {
      use_mrope: false,
      num_experts: 0,
      quantization_config: null,
      auto_map: { AutoTokenizer: ['t.T', null] },
    };
    expect(withOptions(off)).toEqual(withOptions({}));
  });
});
