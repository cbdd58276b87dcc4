import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseModelConfig } from './model-config.ts';
import { loraTargets, modelTensors, parameterCount } from './model-tensors.ts';
import { readSafetensors } from './safetensors.ts';

const asset = (path: string) => readFileSync(new URL(`../../../assets/models/${path}`, import.meta.url));
const text = asset('stories260K/config.json').toString('utf8');
const withOptions = (options: object) => parseModelConfig(JSON.stringify({ ...JSON.parse(text), ...options }));

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

  it('lists biases and norms with their shapes', () => {
    const shapes = (options: object) => {
      const tensors = modelTensors(withOptions(options));
      return new Map(tensors.map(({ name, shape }) => [name.replace('model.layers.4.', ''), shape]));
    };
    const llama = shapes({ attention_bias: true, mlp_bias: true });
    expect(llama.get('self_attn.q_proj.bias')).toEqual([64]);
    expect(llama.get('self_attn.k_proj.bias')).toEqual([32]);
    expect(llama.get('self_attn.o_proj.bias')).toEqual([64]);
    expect(llama.get('mlp.up_proj.bias')).toEqual([172]);
    expect(llama.get('mlp.down_proj.bias')).toEqual([64]);
    const qwen3 = shapes({ architectures: ['Qwen3ForCausalLM'], head_dim: 10 });
    expect(qwen3.get('self_attn.q_norm.weight')).toEqual([10]);
    expect(qwen3.get('self_attn.k_norm.weight')).toEqual([10]);
    expect(qwen3.get('self_attn.q_proj.weight')).toEqual([80, 64]);
    expect(qwen3.get('self_attn.o_proj.weight')).toEqual([64, 80]);
  });
});

describe('parameterCount', () => {
  // Totals as the pages of the models give them.
  const models: [string, object, number][] = [
    [
      'SmolLM2-135M',
      {
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        head_dim: 64,
        vocab_size: 49_152,
      },
      134_515_008,
    ],
    [
      'Llama-3.2-1B',
      {
        hidden_size: 2048,
        intermediate_size: 8192,
        num_hidden_layers: 16,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 64,
        vocab_size: 128_256,
      },
      1_235_814_400,
    ],
    [
      'TinyLlama-1.1B',
      {
        hidden_size: 2048,
        intermediate_size: 5632,
        num_hidden_layers: 22,
        num_attention_heads: 32,
        num_key_value_heads: 4,
        head_dim: null,
        vocab_size: 32_000,
        tie_word_embeddings: false,
      },
      1_100_048_384,
    ],
    [
      'Mistral-7B-v0.1',
      {
        architectures: ['MistralForCausalLM'],
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: null,
        vocab_size: 32_000,
        tie_word_embeddings: false,
      },
      7_241_732_096,
    ],
    [
      'Qwen2.5-0.5B',
      {
        architectures: ['Qwen2ForCausalLM'],
        hidden_size: 896,
        intermediate_size: 4864,
        num_hidden_layers: 24,
        num_attention_heads: 14,
        num_key_value_heads: 2,
        head_dim: null,
        vocab_size: 151_936,
      },
      494_032_768,
    ],
    [
      'Qwen3-0.6B',
      {
        architectures: ['Qwen3ForCausalLM'],
        hidden_size: 1024,
        intermediate_size: 3072,
        num_hidden_layers: 28,
        num_attention_heads: 16,
        num_key_value_heads: 8,
        head_dim: 128,
        vocab_size: 151_936,
      },
      596_049_920,
    ],
  ];
  it.each(models)('is that of %s', (_, options, parameters) => {
    expect(parameterCount(withOptions(options))).toBe(parameters);
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
