// A model folder with something wrong in it: every case is named by a typed error, and what is right is read right.
import { readSafetensors, toFloat32, writeSafetensors } from '@weft/formats';
import { readAsset } from '@weft/wgsl-kernels/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadModel, MODEL_FILES, requireTokenizer } from './base-model.ts';

const text = new TextEncoder();

describe('loading a model', () => {
  let files: ReadonlyMap<string, Uint8Array>;
  let weights: Parameters<typeof writeSafetensors>[0][number][];
  beforeAll(async () => {
    const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
    files = new Map(await Promise.all(MODEL_FILES.map(read)));
    const { tensors } = readSafetensors(files.get('model.safetensors') ?? new Uint8Array());
    weights = [...tensors].map(([name, tensor]) => ({
      name,
      dtype: 'F32',
      shape: tensor.shape,
      data: toFloat32(tensor),
    }));
  });

  const withFile = (name: string, bytes: Uint8Array | string) =>
    new Map([...files, [name, typeof bytes === 'string' ? text.encode(bytes) : bytes]]);
  const withConfig = (change: object) => {
    const config: object = JSON.parse(new TextDecoder().decode(files.get('config.json')));
    return withFile('config.json', JSON.stringify({ ...config, ...change }));
  };
  const code = (expected: string) => expect.objectContaining({ code: expected });

  it('reads configuration, weights and tokenizer', () => {
    const model = loadModel(files);
    expect(model.config).toMatchObject({ hiddenSize: 64, layers: 5, heads: 8, kvHeads: 4, vocabSize: 512 });
    expect(model.weights.get('model.norm.weight')).toHaveLength(64);
    expect(requireTokenizer(model).decode(requireTokenizer(model).encode('a little girl'))).toBe('a little girl');
  });

  it('widens half precision exactly, and takes a head of its own', () => {
    const head = { name: 'lm_head.weight', dtype: 'F32' as const, shape: [512, 64], data: new Float32Array(512 * 64) };
    const halves = weights.map((tensor) => ({ ...tensor, dtype: 'F16' as const }));
    const untied = new Map([
      ...withConfig({ tie_word_embeddings: false }),
      ['model.safetensors', writeSafetensors([...halves, head])],
    ]);
    const model = loadModel(untied);
    expect(model.weights.get('lm_head.weight')).toEqual(head.data);
    const widened = model.weights.get('model.norm.weight') ?? [];
    for (const [i, value] of (weights.find(({ name }) => name === 'model.norm.weight')?.data ?? []).entries())
      expect(Math.abs((widened[i] ?? 0) - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -11);
  });

  it('does without a tokenizer until text needs one', () => {
    const bare = new Map([...files].filter(([name]) => !name.startsWith('tokenizer')));
    expect(loadModel(bare).tokenizer).toBeNull();
    expect(() => requireTokenizer(loadModel(bare))).toThrow(code('no-tokenizer'));
  });

  it.each(['config.json', 'model.safetensors', 'tokenizer_config.json'])('names the missing %s', (name) => {
    const without = new Map([...files].filter(([file]) => file !== name));
    expect(() => loadModel(without)).toThrow(code('model-missing'));
    expect(() => loadModel(without)).toThrow(name);
  });

  it('names a missing tensor and a wrong shape', () => {
    const name = 'model.layers.3.mlp.up_proj.weight';
    const without = withFile('model.safetensors', writeSafetensors(weights.filter((tensor) => tensor.name !== name)));
    expect(() => loadModel(without)).toThrow(code('model-tensor'));
    expect(() => loadModel(without)).toThrow(name);
    const turned = weights.map((tensor) =>
      tensor.name === name ? { ...tensor, shape: [...tensor.shape].reverse() } : tensor,
    );
    const bent = withFile('model.safetensors', writeSafetensors(turned));
    expect(() => loadModel(bent)).toThrow(`${name} is [64,172] where config.json promises [172,64]`);
    expect(() => loadModel(withConfig({ tie_word_embeddings: false }))).toThrow(/lm_head\.weight/);
  });

  it('names an architecture it does not know, and options it cannot honour', () => {
    expect(() => loadModel(withConfig({ architectures: ['GPT2LMHeadModel'] }))).toThrow(
      code('unsupported-architecture'),
    );
    expect(() => loadModel(withConfig({ architectures: ['GPT2LMHeadModel'] }))).toThrow(/GPT2LMHeadModel/);
    expect(() => loadModel(withConfig({ rope_scaling: { rope_type: 'llama3' } }))).toThrow(/rope_scaling/);
    expect(() => loadModel(withConfig({ attention_bias: true }))).toThrow(code('unsupported-architecture'));
  });

  it('names damaged files', () => {
    const bytes = files.get('model.safetensors') ?? new Uint8Array();
    expect(() => loadModel(withFile('model.safetensors', bytes.slice(0, -1000)))).toThrow(
      code('safetensors-truncated'),
    );
    const longHeader = bytes.slice();
    new DataView(longHeader.buffer).setBigUint64(0, 2n ** 40n, true);
    expect(() => loadModel(withFile('model.safetensors', longHeader))).toThrow(code('safetensors-header'));
    expect(() => loadModel(withFile('config.json', '{"architectures": ['))).toThrow(code('model-config'));
    expect(() => loadModel(withFile('tokenizer.json', 'no json'))).toThrow(code('model-config'));
    expect(() => loadModel(withFile('tokenizer.json', '{}'))).toThrow(code('model-config'));
    expect(() => loadModel(withFile('tokenizer_config.json', '[]'))).toThrow(code('model-config'));
  });
});
