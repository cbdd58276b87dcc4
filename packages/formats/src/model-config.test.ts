import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loraTargets, modelTensors, parameterCount, parseModelConfig } from './model-config.ts';
import { readSafetensors } from './safetensors.ts';

const asset = (path: string) => readFileSync(new URL(`../../../assets/models/${path}`, import.meta.url));
const text = asset('stories260K/config.json').toString('utf8');
const plain: Record<string, unknown> = JSON.parse(text);
const withOptions = (options: object) => parseModelConfig(JSON.stringify({ ...plain, ...options }));

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
      tiedEmbeddings: true,
      bosTokenId: 1,
      eosTokenIds: [2],
    });
  });

  it('fills in what Hugging Face leaves out', () => {
    const { num_key_value_heads, head_dim, bos_token_id, eos_token_id, rope_theta, ...least } = plain;
    const config = parseModelConfig(JSON.stringify(least));
    expect(config).toMatchObject({ kvHeads: 8, headSize: 8, bosTokenId: null, eosTokenIds: [], ropeTheta: 10_000 });
    expect(withOptions({ eos_token_id: [2, 7] }).eosTokenIds).toEqual([2, 7]);
  });

  it('finds the base of the rotary embedding where transformers 5 writes it', () => {
    const { rope_theta, ...rest } = plain;
    const config = { ...rest, rope_parameters: { rope_type: 'default', rope_theta: 500_000 } };
    expect(parseModelConfig(JSON.stringify(config)).ropeTheta).toBe(500_000);
  });

  const refused: [string, object, string, RegExp][] = [
    ['another architecture', { architectures: ['GPT2LMHeadModel'] }, 'unsupported-architecture', /GPT2LMHeadModel/],
    ['no architecture', { architectures: [] }, 'model-config', /names no architecture/],
    [
      'scaled RoPE',
      { rope_scaling: { rope_type: 'llama3' } },
      'unsupported-architecture',
      /rope_scaling of type llama3/,
    ],
    [
      'scaled RoPE, old',
      { rope_scaling: { type: 'linear' } },
      'unsupported-architecture',
      /rope_scaling of type linear/,
    ],
    [
      'scaled RoPE, new',
      { rope_parameters: { rope_type: 'yarn' } },
      'unsupported-architecture',
      /rope_parameters of type yarn/,
    ],
    ['partial RoPE', { rope_parameters: { partial_rotary_factor: 0.5 } }, 'unsupported-architecture', /Partial rotary/],
    ['quantised weights', { quantization_config: { bits: 4 } }, 'unsupported-architecture', /quantization_config/],
    ['another activation', { hidden_act: 'gelu' }, 'unsupported-architecture', /Activation gelu/],
    ['bias in attention', { attention_bias: true }, 'unsupported-architecture', /attention_bias/],
    ['bias in feed-forward', { mlp_bias: true }, 'unsupported-architecture', /mlp_bias/],
    ['no size', { hidden_size: undefined }, 'model-config', /hidden_size/],
    ['a fraction', { num_hidden_layers: 2.5 }, 'model-config', /num_hidden_layers/],
    ['heads that do not divide', { head_dim: null, hidden_size: 63 }, 'model-config', /7\.875 elements/],
    ['an odd head', { head_dim: 7 }, 'model-config', /7 elements cannot be rotated/],
    ['key-value heads that do not divide', { num_key_value_heads: 3 }, 'model-config', /8 heads cannot share 3/],
  ];
  it.each(refused)('refuses by name: %s', (_, options, code, message) => {
    expect(() => withOptions(options)).toThrow(expect.objectContaining({ name: 'FormatError', code }));
    expect(() => withOptions(options)).toThrow(message);
  });

  it('refuses what is no JSON', () => {
    expect(() => parseModelConfig('{')).toThrow(expect.objectContaining({ code: 'model-config' }));
  });
});

describe('modelTensors', () => {
  it.each(['stories260K', 'babyllama-105'])('lists what is in the checkpoint of %s', (model) => {
    const config = parseModelConfig(asset(`${model}/config.json`).toString('utf8'));
    const { tensors } = readSafetensors(asset(`${model}/model.safetensors`));
    let parameters = 0;
    for (const { name, shape } of modelTensors(config)) {
      expect([name, tensors.get(name)?.shape]).toEqual([name, shape]);
      parameters += shape.reduce((product, size) => product * size, 1);
    }
    expect(parameterCount(config)).toBe(parameters);
    if (!tensors.has('lm_head.weight')) expect(tensors.size).toBe(modelTensors(config).length);
  });

  it('asks for a head of its own where embeddings are not tied', () => {
    const names = modelTensors(withOptions({ tie_word_embeddings: false })).map(({ name }) => name);
    expect(names).toContain('lm_head.weight');
  });
});

describe('loraTargets', () => {
  it('lists the chosen projections layer by layer with their shapes', () => {
    const config = parseModelConfig(text);
    expect(loraTargets(config)).toHaveLength(35);
    expect(loraTargets(config, ['down_proj', 'k_proj']).slice(0, 3)).toEqual([
      { module: 'model.layers.0.self_attn.k_proj', projection: 'k_proj', layer: 0, in: 64, out: 32 },
      { module: 'model.layers.0.mlp.down_proj', projection: 'down_proj', layer: 0, in: 172, out: 64 },
      { module: 'model.layers.1.self_attn.k_proj', projection: 'k_proj', layer: 1, in: 64, out: 32 },
    ]);
  });
});
