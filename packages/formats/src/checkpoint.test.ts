import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type ByteSource, inMemory } from './byte-source.ts';
import { openCheckpoint, weightFilesOf } from './checkpoint.ts';
import { parseModelConfig } from './model-config.ts';
import { modelTensors } from './model-tensors.ts';
import { readSafetensors, toFloat32 } from './safetensors.ts';
import { type FloatDtype, type TensorToWrite, writeSafetensors } from './safetensors-write.ts';

const CONFIG = {
  architectures: ['Qwen3ForCausalLM'],
  hidden_size: 6,
  intermediate_size: 5,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  vocab_size: 7,
  attention_bias: true,
  tie_word_embeddings: false,
};
const utf8 = (text: string) => new TextEncoder().encode(text);
const INDEX = 'model.safetensors.index.json';

function tensorsOf(config: object, dtype: FloatDtype = 'F32'): TensorToWrite[] {
  return modelTensors(parseModelConfig(JSON.stringify(config))).map(({ name, shape }, k) => {
    const length = shape.reduce((product, size) => product * size, 1);
    // Small whole numbers and halves: exact in every type.
    return { name, shape, dtype, data: Float32Array.from({ length }, (_, i) => ((i + k) % 50) / 2 - 8) };
  });
}

type Bytes = Record<string, Uint8Array>;
const sources = (files: Bytes): Map<string, ByteSource> =>
  new Map(Object.entries(files).map(([name, bytes]) => [name, inMemory(bytes)]));
const single = (tensors: readonly TensorToWrite[], config: object = CONFIG): Bytes => ({
  'config.json': utf8(JSON.stringify(config)),
  'model.safetensors': writeSafetensors(tensors),
});

/** The tensors dealt in turn to shards, and the index that says so. */
function sharded(tensors: readonly TensorToWrite[], count = 3): Bytes {
  const name = (i: number) => `model-0000${i + 1}-of-0000${count}.safetensors`;
  const shards = Array.from({ length: count }, (_, i) => tensors.filter((_tensor, k) => k % count === i));
  const weight_map = Object.fromEntries(tensors.map((tensor, k) => [tensor.name, name(k % count)]));
  return {
    'config.json': utf8(JSON.stringify(CONFIG)),
    [INDEX]: utf8(JSON.stringify({ metadata: { total_size: 1 }, weight_map })),
    ...Object.fromEntries(shards.map((shard, i) => [name(i), writeSafetensors(shard)])),
  };
}

const TENSORS = tensorsOf(CONFIG);
const refusal = async (files: Bytes, code: string, message: RegExp) => {
  const opening = openCheckpoint(sources(files));
  await expect(opening).rejects.toMatchObject({ name: 'FormatError', code, message: expect.stringMatching(message) });
};

describe('openCheckpoint', () => {
  it.each(['F32', 'F16', 'BF16'] as const)('reads %s, whole or in shards, in pieces of any size', async (dtype) => {
    const tensors = tensorsOf(CONFIG, dtype);
    for (const files of [single(tensors), sharded(tensors)]) {
      const checkpoint = await openCheckpoint(sources(files));
      expect(checkpoint.config.queryKeyNorm).toBe(true);
      for (const { name, data } of tensors) {
        expect(checkpoint.dtypeOf(name)).toBe(dtype);
        expect(await checkpoint.read(name, 0, data.length)).toEqual(data);
        const pieces: number[] = [];
        for (let first = 0; first < data.length; first += 3)
          pieces.push(...(await checkpoint.read(name, first, Math.min(3, data.length - first))));
        expect(pieces).toEqual([...data]);
      }
    }
  });

  it('reads a real model as readSafetensors does', async () => {
    const asset = (name: string) =>
      readFileSync(new URL(`../../../assets/models/stories260K/${name}`, import.meta.url));
    const weights = asset('model.safetensors');
    const checkpoint = await openCheckpoint(
      sources({ 'config.json': asset('config.json'), 'model.safetensors': weights }),
    );
    for (const [name, tensor] of readSafetensors(weights).tensors) {
      const values = toFloat32(tensor);
      expect(await checkpoint.read(name, 5, values.length - 5)).toEqual(values.subarray(5));
    }
  });

  it('asks a source for headers and then for what is read, no more', async () => {
    const files = single(TENSORS);
    const weights = files['model.safetensors'] ?? new Uint8Array();
    const asked: number[] = [];
    const counting: ByteSource = {
      size: weights.length,
      read: (offset, length) => {
        asked.push(length);
        return inMemory(weights).read(offset, length);
      },
    };
    const checkpoint = await openCheckpoint(new Map([...sources(files), ['model.safetensors', counting]]));
    const header = 8 + Number(new DataView(weights.buffer).getBigUint64(0, true));
    expect(asked).toEqual([8, header]);
    await checkpoint.read('lm_head.weight', 6, 12);
    expect(asked).toEqual([8, header, 48]);
  });

  it('prefers one file to an index, as transformers does', async () => {
    const files = {
      ...sharded(TENSORS),
      ...single(TENSORS.map((tensor) => ({ ...tensor, data: tensor.data.map((x) => x + 1) }))),
    };
    const checkpoint = await openCheckpoint(sources(files));
    expect((await checkpoint.read('model.norm.weight', 0, 1))[0]).toBe(
      1 + (TENSORS.find(({ name }) => name === 'model.norm.weight')?.data[0] ?? 0),
    );
  });

  it('lets be what it does not need: the head of a tied model, a tensor of another kind', async () => {
    const tied = { ...CONFIG, tie_word_embeddings: true };
    const checkpoint = await openCheckpoint(sources(single(TENSORS, tied)));
    expect(() => checkpoint.dtypeOf('lm_head.weight')).toThrow(/Qwen3ForCausalLM has no tensor lm_head\.weight/);
    const stray: TensorToWrite = {
      name: 'model.layers.0.self_attn.rotary_emb.inv_freq',
      dtype: 'F64',
      shape: [1],
      data: Float64Array.of(1),
    };
    await expect(openCheckpoint(sources(single([...TENSORS, stray])))).resolves.toBeDefined();
  });

  it('names the file that is missing', async () => {
    const { 'config.json': config, ...rest } = single(TENSORS);
    await refusal(rest, 'model-missing', /no config\.json/);
    await refusal(
      { 'config.json': config ?? utf8('') },
      'model-missing',
      /no model\.safetensors, and no model\.safetensors\.index\.json/,
    );
    const { 'model-00002-of-00003.safetensors': _gone, ...shards } = sharded(TENSORS);
    await refusal(shards, 'model-missing', /no model-00002-of-00003\.safetensors, a shard/);
  });

  it('names the tensor that is missing, and guesses why', async () => {
    const lacking = (gone: string) => single(TENSORS.filter(({ name }) => name !== gone));
    await refusal(
      lacking('model.layers.1.self_attn.q_norm.weight'),
      'model-tensor',
      /no model\.layers\.1\.self_attn\.q_norm\.weight/,
    );
    await refusal(
      lacking('model.layers.0.self_attn.o_proj.bias'),
      'model-tensor',
      /no model\.layers\.0\.self_attn\.o_proj\.bias/,
    );
    await refusal(lacking('lm_head.weight'), 'model-tensor', /no lm_head\.weight.*tie_word_embeddings/);
    const renamed = (from: string, to: string) =>
      single(TENSORS.map((tensor) => ({ ...tensor, name: tensor.name.replace(from, to) })));
    await refusal(renamed('model.', ''), 'model-tensor', /called embed_tokens\.weight.*AutoModelForCausalLM/);
    await refusal(
      renamed('model.', 'language_model.model.'),
      'model-tensor',
      /called language_model\.model\.embed_tokens/,
    );
  });

  it('names the tensor of another shape or type', async () => {
    const bent = TENSORS.map((tensor) =>
      tensor.name.endsWith('layers.1.mlp.up_proj.weight') ? { ...tensor, shape: [6, 5] } : tensor,
    );
    await refusal(
      single(bent),
      'model-shape',
      /layers\.1\.mlp\.up_proj\.weight is \[6,5\] where config\.json promises \[5,6\]/,
    );
    const wide = TENSORS.map((tensor, k): TensorToWrite => (k === 4 ? { ...tensor, dtype: 'F64' } : tensor));
    await refusal(single(wide), 'model-tensor', new RegExp(`${TENSORS[4]?.name} is F64; only F32, F16, BF16`));
  });

  it('names the tensor that is in another shard than the index says', async () => {
    const files = sharded(TENSORS);
    const index = JSON.parse(new TextDecoder().decode(files[INDEX]));
    index.weight_map['lm_head.weight'] = 'model-00001-of-00003.safetensors';
    const home = `model-0000${((TENSORS.length - 1) % 3) + 1}-of-00003`;
    expect(home).not.toContain('00001-of');
    await refusal(
      { ...files, [INDEX]: utf8(JSON.stringify(index)) },
      'model-tensor',
      new RegExp(`00001-of-00003\\.safetensors has no lm_head\\.weight.*it is in ${home}`),
    );
    index.weight_map['lm_head.weight'] = `${home}.safetensors`;
    index.weight_map.ghost = `${home}.safetensors`;
    await refusal({ ...files, [INDEX]: utf8(JSON.stringify(index)) }, 'model-tensor', /has no ghost/);
  });

  it('passes on what is wrong with config.json and with a header', async () => {
    await refusal({ ...single(TENSORS), 'config.json': utf8('{') }, 'model-config', /not JSON/);
    await refusal(
      single(TENSORS, { ...CONFIG, quantization_config: {} }),
      'unsupported-architecture',
      /quantization_config/,
    );
    const weights = writeSafetensors(TENSORS);
    await refusal(
      { ...single(TENSORS), 'model.safetensors': weights.subarray(0, -1) },
      'safetensors-truncated',
      /model\.safetensors/,
    );
    await refusal({ ...single(TENSORS), 'model.safetensors': utf8('abc') }, 'safetensors-truncated', /3 bytes/);
    const endless = weights.slice();
    new DataView(endless.buffer).setBigUint64(0, 2n ** 60n, true);
    await refusal({ ...single(TENSORS), 'model.safetensors': endless }, 'safetensors-header', /claims a header/);
    const files = sharded(TENSORS);
    const cut = (files['model-00003-of-00003.safetensors'] ?? new Uint8Array()).subarray(0, 30);
    await refusal({ ...files, 'model-00003-of-00003.safetensors': cut }, 'safetensors-header', /model-00003-of-00003/);
  });
});

describe('Checkpoint.read', () => {
  it.each(['F32', 'F16', 'BF16'] as const)('names the element of %s that is no number', async (dtype) => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const tensors = tensorsOf(CONFIG, dtype);
      const norm = tensors.find(({ name }) => name === 'model.norm.weight');
      if (norm) norm.data[4] = value;
      const checkpoint = await openCheckpoint(sources(single(tensors)));
      await expect(checkpoint.read('model.norm.weight', 0, 4)).resolves.toHaveLength(4);
      await expect(checkpoint.read('model.norm.weight', 3, 2)).rejects.toMatchObject({
        code: 'model-tensor',
        message: expect.stringContaining(`model.norm.weight holds ${value} at element 4`),
      });
    }
  });

  it('stays within the tensor, and notices a file that shrank', async () => {
    const weights = writeSafetensors(TENSORS);
    let shrunk = false;
    const source: ByteSource = {
      size: weights.length,
      read: (offset, length) => inMemory(shrunk ? weights.subarray(0, 100) : weights).read(offset, length),
    };
    const checkpoint = await openCheckpoint(new Map([...sources(single(TENSORS)), ['model.safetensors', source]]));
    for (const [first, count] of [
      [5, 2],
      [-1, 2],
      [0, -1],
      [Number.NaN, 1],
    ] as const)
      await expect(checkpoint.read('model.norm.weight', first, count)).rejects.toMatchObject({ code: 'model-tensor' });
    shrunk = true;
    await expect(checkpoint.read('model.norm.weight', 0, 6)).rejects.toMatchObject({ code: 'safetensors-truncated' });
  });
});

describe('weightFilesOf', () => {
  it('is the one file without an index, else the shards in order', () => {
    expect(weightFilesOf(null)).toEqual(['model.safetensors']);
    expect(weightFilesOf(new TextDecoder().decode(sharded(TENSORS)[INDEX]))).toEqual([
      'model-00001-of-00003.safetensors',
      'model-00002-of-00003.safetensors',
      'model-00003-of-00003.safetensors',
    ]);
  });

  const wrong: [string, string, RegExp][] = [
    ['no JSON', '{', /is not JSON/],
    ['no map', '{"metadata": {}}', /no weight_map/],
    ['a map of numbers', '{"weight_map": {"a": 1}}', /no weight_map/],
    ['an empty map', '{"weight_map": {}}', /names no tensor/],
    ...['../other.safetensors', '/etc/passwd', 'a/b.safetensors', 'C:\\x.safetensors', 'pytorch_model.bin', ''].map(
      (file): [string, string, RegExp] => [
        `the file "${file}"`,
        JSON.stringify({ weight_map: { a: file } }),
        /puts a into/,
      ],
    ),
  ];
  it.each(wrong)('refuses an index with %s', (_, text, message) => {
    expect(() => weightFilesOf(text)).toThrow(expect.objectContaining({ name: 'FormatError', code: 'model-index' }));
    expect(() => weightFilesOf(text)).toThrow(message);
  });
});
