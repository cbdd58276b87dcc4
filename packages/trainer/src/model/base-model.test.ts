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

  it('reads configuration, weights and tokenizer', async () => {
    const model = await loadModel(files);
    expect(model.config).toMatchObject({ hiddenSize: 64, layers: 5, heads: 8, kvHeads: 4, vocabSize: 512 });
    expect(await model.checkpoint.read('model.norm.weight', 1, 63)).toHaveLength(63);
    expect(requireTokenizer(model).decode(requireTokenizer(model).encode('a little girl'))).toBe('a little girl');
  });

  it('widens half precision exactly, and takes a head of its own', async () => {
    const head = { name: 'lm_head.weight', dtype: 'F32' as const, shape: [512, 64], data: new Float32Array(512 * 64) };
    const halves = weights.map((tensor) => ({ ...tensor, dtype: 'F16' as const }));
    const untied = new Map([
      ...withConfig({ tie_word_embeddings: false }),
      ['model.safetensors', writeSafetensors([...halves, head])],
    ]);
    const model = await loadModel(untied);
    expect(await model.checkpoint.read('lm_head.weight', 0, head.data.length)).toEqual(head.data);
    const widened = await model.checkpoint.read('model.norm.weight', 0, 64);
    for (const [i, value] of (weights.find(({ name }) => name === 'model.norm.weight')?.data ?? []).entries())
      expect(Math.abs((widened[i] ?? 0) - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -11);
  });

  it('does without a tokenizer until text needs one', async () => {
    const bare = new Map([...files].filter(([name]) => !name.startsWith('tokenizer')));
    const model = await loadModel(bare);
    expect(model.tokenizer).toBeNull();
    expect(() => requireTokenizer(model)).toThrow(code('no-tokenizer'));
  });

  it.each(['config.json', 'model.safetensors', 'tokenizer_config.json'])('names the missing %s', async (name) => {
    const without = new Map([...files].filter(([file]) => file !== name));
    await expect(loadModel(without)).rejects.toThrow(code('model-missing'));
    await expect(loadModel(without)).rejects.toThrow(name);
  });

  it('names a missing tensor and a wrong shape', async () => {
    const name = 'model.layers.3.mlp.up_proj.weight';
    const without = withFile('model.safetensors', writeSafetensors(weights.filter((tensor) => tensor.name !== name)));
    await expect(loadModel(without)).rejects.toThrow(code('model-tensor'));
    await expect(loadModel(without)).rejects.toThrow(name);
    const turned = weights.map((tensor) =>
      tensor.name === name ? { ...tensor, shape: [...tensor.shape].reverse() } : tensor,
    );
    const bent = withFile('model.safetensors', writeSafetensors(turned));
    await expect(loadModel(bent)).rejects.toThrow(`${name} is [64,172] where config.json promises [172,64]`);
    await expect(loadModel(withConfig({ tie_word_embeddings: false }))).rejects.toThrow(/lm_head\.weight/);
  });

  it('names an architecture it does not know, and options it cannot honour', async () => {
    await expect(loadModel(withConfig({ architectures: ['GPT2LMHeadModel'] }))).rejects.toThrow(
      code('unsupported-architecture'),
    );
    await expect(loadModel(withConfig({ architectures: ['GPT2LMHeadModel'] }))).rejects.toThrow(/GPT2LMHeadModel/);
    await expect(loadModel(withConfig({ rope_scaling: { rope_type: 'yarn', factor: 2 } }))).rejects.toThrow(/yarn/);
    await expect(loadModel(withConfig({ hidden_act: 'gelu' }))).rejects.toThrow(code('unsupported-architecture'));
  });

  it('names damaged files', async () => {
    const bytes = files.get('model.safetensors') ?? new Uint8Array();
    await expect(loadModel(withFile('model.safetensors', bytes.slice(0, -1000)))).rejects.toThrow(
      code('safetensors-truncated'),
    );
    const longHeader = bytes.slice();
    new DataView(longHeader.buffer).setBigUint64(0, 2n ** 40n, true);
    await expect(loadModel(withFile('model.safetensors', longHeader))).rejects.toThrow(code('safetensors-header'));
    await expect(loadModel(withFile('config.json', '{"architectures": ['))).rejects.toThrow(code('model-config'));
    await expect(loadModel(withFile('tokenizer.json', 'no json'))).rejects.toThrow(code('model-config'));
    await expect(loadModel(withFile('tokenizer.json', '{}'))).rejects.toThrow(code('model-config'));
    await expect(loadModel(withFile('tokenizer_config.json', '[]'))).rejects.toThrow(code('model-config'));
  });
});
