// `weft init` as its users meet it: shapes as published, numbers as promised, folders that open again.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { modelTensors } from '@weft/formats';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Io } from '../command.ts';
import { readModelFolder } from '../folders.ts';
import { runWeft } from '../testing.ts';
import { registerInit } from './init.ts';

const assets = fileURLToPath(new URL('../../../../assets/models/', import.meta.url));
const stories = join(assets, 'stories260K');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weft-init-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  process.exitCode = 0;
});

const weft = (...args: string[]) => runWeft([registerInit], args);
async function init(name: string, ...args: string[]) {
  const { exitCode, out, err } = await weft('init', '--out', join(folder, name), '--json', ...args);
  expect(err).toBe('');
  expect(exitCode).toBe(0);
  return JSON.parse(out);
}

const io: Io = {
  json: false,
  signal: new AbortController().signal,
  note: () => {},
  status: () => {},
  result: () => {},
};
/** Every tensor of a checkpoint, float32. */
async function tensorsOf(path: string): Promise<Map<string, Float32Array>> {
  const { config, checkpoint } = await readModelFolder(path, io);
  const tensors = new Map<string, Float32Array>();
  for (const { name, shape } of modelTensors(config)) {
    const count = shape.reduce((product, length) => product * length, 1);
    tensors.set(name, await checkpoint.read(name, 0, count));
  }
  return tensors;
}
const bits = (values: Float32Array | undefined) => Buffer.from(values?.buffer ?? new ArrayBuffer(0)).toString('base64');
const moments = (values: Float32Array) => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const central = (power: number) => values.reduce((sum, value) => sum + (value - mean) ** power, 0) / values.length;
  return { mean, deviation: Math.sqrt(central(2)), kurtosis: central(4) / central(2) ** 2 };
};

describe('weft init', () => {
  it('knows shapes with as many parameters as the published models have', async () => {
    const { out } = await weft('init', '--list', '--json');
    const parameters = Object.fromEntries(
      JSON.parse(out).map((shape: { name: string; parameters: number }) => [shape.name, shape.parameters]),
    );
    // As the models' pages on the hub, or their safetensors headers, count them.
    expect(parameters).toEqual({
      stories260k: 260_032,
      stories15m: 15_191_712,
      stories110m: 109_529_856,
      'smollm2-135m': 134_515_008,
      'smollm2-360m': 361_821_120,
      'qwen2.5-0.5b': 494_032_768,
      'qwen3-0.6b': 596_049_920,
      'tinyllama-1.1b': 1_100_048_384,
      'llama-3.2-1b': 1_235_814_400,
      'qwen2.5-1.5b': 1_543_714_304,
      'smollm2-1.7b': 1_711_376_384,
      'llama-3.2-3b': 3_212_749_824,
      'llama-2-7b': 6_738_415_616,
      'mistral-7b': 7_241_732_096,
    });
    expect((await weft('init', '--list')).out).toMatch(/smollm2-135m +HuggingFaceTB\/SmolLM2-135M +135 +30 +576/);
  });

  it('draws matrices from normal(0, initializer_range), and leaves norms at one', async () => {
    const result = await init('normal', '--like', 'stories260k', '--dtype', 'f32');
    expect(result).toMatchObject({ parameters: 260_032, dtype: 'f32', seed: 0, tokenizer: [] });
    const tensors = await tensorsOf(join(folder, 'normal'));
    const all: number[] = [];
    for (const [name, values] of tensors) {
      if (name.endsWith('norm.weight')) expect(new Set(values), name).toEqual(new Set([1]));
      else all.push(...values);
    }
    const { mean, deviation, kurtosis } = moments(Float32Array.from(all));
    // Four standard errors each: σ/√n, σ/√(2n) and √(24/n).
    const n = all.length;
    expect(Math.abs(mean)).toBeLessThan((4 * 0.02) / Math.sqrt(n));
    expect(Math.abs(deviation - 0.02)).toBeLessThan((4 * 0.02) / Math.sqrt(2 * n));
    expect(Math.abs(kurtosis - 3)).toBeLessThan(4 * Math.sqrt(24 / n));
    // Neighbours come from one pair of uniform numbers, and must not show it.
    const neighbours = all.slice(1).reduce((sum, value, i) => sum + value * (all[i] ?? 0), 0) / (n * 0.02 ** 2);
    expect(Math.abs(neighbours)).toBeLessThan(4 / Math.sqrt(n));
  });

  it('gives the same numbers for the same seed, and others for another', async () => {
    const file = async (name: string) => (await readFile(join(folder, name, 'model.safetensors'))).toString('base64');
    await init('seed-a', '--like', 'stories260k', '--seed', '5');
    await init('seed-b', '--like', 'stories260k', '--seed', '5');
    await init('seed-c', '--like', 'stories260k', '--seed', '6');
    expect((await file('seed-a')) === (await file('seed-b'))).toBe(true);
    expect((await file('seed-a')) === (await file('seed-c'))).toBe(false);
  });

  it('spreads over shards that hold the same numbers as one file', async () => {
    await init('whole', '--like', 'stories260k', '--dtype', 'f32');
    const { files } = await init('shards', '--like', 'stories260k', '--dtype', 'f32', '--shards', '3');
    const names = ['model-00001-of-00003', 'model-00002-of-00003', 'model-00003-of-00003'].map(
      (name) => `${name}.safetensors`,
    );
    expect(files.map(({ name }: { name: string }) => name)).toEqual(names);
    for (const { bytes } of files) expect(bytes).toBeGreaterThan((260_032 * 4) / 3 / 2);
    const written = await readdir(join(folder, 'shards'));
    expect(written.sort()).toEqual([...names, 'config.json', 'model.safetensors.index.json'].sort());
    const [whole, shards] = [await tensorsOf(join(folder, 'whole')), await tensorsOf(join(folder, 'shards'))];
    expect([...shards.keys()]).toEqual([...whole.keys()]);
    for (const [name, values] of whole) expect(bits(shards.get(name)) === bits(values), name).toBe(true);
    expect(
      (await weft('init', '--like', 'stories260k', '--shards', '999', '--out', join(folder, 'many'))).err,
    ).toContain('--shards 999 is more than');
    // As many shards as tensors, each with one.
    const most = modelTensors((await readModelFolder(join(folder, 'whole'), io)).config).length;
    expect((await init('most', '--like', 'stories260k', '--shards', String(most))).files).toHaveLength(most);
  });

  it('writes each element type, rounded from the same numbers', async () => {
    const exact =
      (await init('f32', '--like', 'stories260k', '--dtype', 'f32')) && (await tensorsOf(join(folder, 'f32')));
    // Half a step of 11 and of 8 significant bits; below 2⁻¹⁴ the steps of float16 no longer shrink.
    for (const [dtype, relative, absolute] of [
      ['f16', 2 ** -11, 2 ** -25],
      ['bf16', 2 ** -8, 0],
    ] as const) {
      const { bytes } = await init(dtype, '--like', 'stories260k', '--dtype', dtype);
      expect(Math.abs(bytes - 260_032 * 2)).toBeLessThan(10_000);
      expect(JSON.parse(await readFile(join(folder, dtype, 'config.json'), 'utf8')).torch_dtype).toBe(
        dtype === 'f16' ? 'float16' : 'bfloat16',
      );
      for (const [name, values] of await tensorsOf(join(folder, dtype))) {
        const reference = exact.get(name);
        const worst = values.reduce((most, value, i) => {
          const wanted = reference?.[i] ?? Number.NaN;
          return Math.max(most, Math.abs(value - wanted) / Math.max(relative * Math.abs(wanted), absolute));
        }, 0);
        expect(worst, name).toBeLessThanOrEqual(1);
      }
    }
  });

  it('copies the shape of a folder, biases and norms of queries and keys included', async () => {
    const like = join(folder, 'tiny-qwen');
    await mkdir(like);
    const tiny = {
      architectures: ['Qwen2ForCausalLM'],
      model_type: 'qwen2',
      hidden_size: 24,
      intermediate_size: 40,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      vocab_size: 97,
      tie_word_embeddings: false,
      initializer_range: 0.5,
      some_field: 'kept',
    };
    await writeFile(join(like, 'config.json'), JSON.stringify(tiny));
    expect(await init('zero-biases', '--like', like, '--dtype', 'f32')).toMatchObject({
      architecture: 'Qwen2ForCausalLM',
    });
    await init('biases', '--like', like, '--dtype', 'f32', '--random-biases');
    const written = JSON.parse(await readFile(join(folder, 'biases', 'config.json'), 'utf8'));
    expect(written).toMatchObject({ ...tiny, torch_dtype: 'float32' });
    const [zero, drawn] = [await tensorsOf(join(folder, 'zero-biases')), await tensorsOf(join(folder, 'biases'))];
    const bias = 'model.layers.1.self_attn.k_proj.bias';
    expect([...(zero.get(bias) ?? [])]).toEqual(Array.from({ length: 12 }, () => 0));
    expect(new Set(drawn.get(bias)).size).toBe(12);
    expect(moments(drawn.get('lm_head.weight') ?? new Float32Array()).deviation).toBeCloseTo(0.5, 1);
    expect(bits(drawn.get('lm_head.weight'))).toBe(bits(zero.get('lm_head.weight')));

    await writeFile(
      join(like, 'config.json'),
      JSON.stringify({ ...tiny, architectures: ['Qwen3ForCausalLM'], head_dim: 8 }),
    );
    await init('qwen3', '--like', like, '--dtype', 'f32');
    expect(new Set((await tensorsOf(join(folder, 'qwen3'))).get('model.layers.0.self_attn.q_norm.weight'))).toEqual(
      new Set([1]),
    );
  });

  it('takes a tokenizer along, when the shape has room for it', async () => {
    const { tokenizer } = await init('tokens', '--like', 'stories260k', '--tokenizer', stories);
    expect(tokenizer).toEqual(['tokenizer.json', 'tokenizer_config.json']);
    expect((await readModelFolder(join(folder, 'tokens'), io)).tokenizer).not.toBeNull();
    expect((await readModelFolder(join(folder, 'normal'), io)).tokenizer).toBeNull();
    const like = join(folder, 'small');
    await mkdir(like);
    const config = JSON.parse(await readFile(join(stories, 'config.json'), 'utf8'));
    await writeFile(join(like, 'config.json'), JSON.stringify({ ...config, vocab_size: 511 }));
    const options = ['--tokenizer', stories, '--out', join(folder, 'too-small')];
    expect((await weft('init', '--like', like, ...options)).err).toContain('tokens up to 511');
    expect(
      (await weft('init', '--like', 'stories260k', '--tokenizer', like, '--out', join(folder, 'none'))).err,
    ).toContain('has no tokenizer.json');
  });

  it('leaves a folder alone that is not empty, and says what is missing', async () => {
    await mkdir(join(folder, 'full'));
    await writeFile(join(folder, 'full', 'mine.txt'), '');
    const full = await weft('init', '--like', 'stories260k', '--out', join(folder, 'full'));
    expect(full).toMatchObject({ exitCode: 1 });
    expect(full.err).toContain('is not empty (mine.txt)');
    expect(await readdir(join(folder, 'full'))).toEqual(['mine.txt']);
    for (const [args, message] of [
      [[], 'Which shape?'],
      [['--like', 'stories260k'], 'Where to?'],
      [['--like', 'gpt-5', '--out', join(folder, 'x')], 'neither a known shape (stories260k, '],
      [['--like', 'stories260k', '--out', join(folder, 'x'), '--dtype', 'q4'], '--dtype is one of f32, f16, bf16'],
    ] as const) {
      const { exitCode, err } = await weft('init', ...args);
      expect(exitCode).toBe(2);
      expect(err).toContain(message);
    }
  });

  it('leaves nothing behind when it is interrupted', async () => {
    const out = join(folder, 'stopped');
    const work = weft('init', '--like', 'stories110m', '--out', out);
    while ((await readdir(out).catch(() => [])).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    process.emit('SIGINT');
    expect((await work).err).toContain('Interrupted');
    expect(await readdir(out)).toEqual([]);
  });
});
