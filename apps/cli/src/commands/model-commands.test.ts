// `weft train`, `eval`, `generate` and `doctor` as their users meet them: files in, one JSON document out, exit codes.
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readAdapter, readSafetensors, scaleOf, toFloat32, writeAdapter } from '@weft/formats';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runWeft } from '../testing.ts';
import { registerDoctor } from './doctor.ts';
import { registerEval } from './eval.ts';
import { registerGenerate } from './generate.ts';
import { registerTrain } from './train.ts';

const assets = fileURLToPath(new URL('../../../../assets/', import.meta.url));
const model = join(assets, 'models', 'stories260K');
const task = (split: string) => join(assets, 'tasks', 'natural-instructions', 'rooms', `${split}.jsonl`);
const readJson = async (path: string) => JSON.parse(await readFile(path, 'utf8'));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weft-cli-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  process.exitCode = 0;
});

const weft = (...args: string[]) => runWeft([registerTrain, registerEval, registerGenerate, registerDoctor], args);

/** The document a command prints under --json. */
async function document(...args: string[]) {
  const { exitCode, out, err } = await weft(...args, '--json');
  expect(err).toBe('');
  expect(exitCode).toBe(0);
  return JSON.parse(out);
}

describe('weft train --grads', () => {
  it('writes the golden loss and gradients of an adapter', async () => {
    const golden = join(model, 'golden-lora');
    const file = join(folder, 'grads', 'g.safetensors');
    const options = ['--model', model, '--data', join(golden, 'data.jsonl'), '--adapter', join(golden, 'adapter')];
    const result = await document('train', ...options, '--rank', '4', '--grads', file);
    const expected = await readJson(join(golden, 'golden.json'));
    expect(result).toMatchObject({ grads: file, targetTokens: expected.targets, truncatedRows: 0 });
    const { tensors } = readSafetensors(await readFile(file));
    const loss = tensors.get('loss');
    expect(loss).toMatchObject({ dtype: 'F32', shape: [] });
    expect(Math.abs((loss ? (toFloat32(loss)[0] ?? 0) : 0) / expected.loss - 1)).toBeLessThan(1e-5);
    const reference = readSafetensors(await readFile(join(golden, 'golden.safetensors'))).tensors;
    for (const [name, tensor] of reference) {
      const ours = tensors.get(name);
      expect(ours?.shape, name).toEqual(tensor.shape);
      const theirs = toFloat32(tensor);
      const values = ours ? toFloat32(ours) : [];
      const error = Math.hypot(...theirs.map((value, i) => value - (values[i] ?? 0)));
      expect(error / Math.hypot(...theirs), name).toBeLessThan(1e-3);
    }
  });
});

describe('weft train, eval and generate', () => {
  it('train an adapter that eval finds better than the bare model, and that train goes on from', async () => {
    const out = join(folder, 'adapter');
    const common = ['--model', model, '--data', task('train'), '--batch', '4', '--lr', '5e-3'];
    const trained = await document('train', ...common, '--rank', '48', '--steps', '8', '--out', out);
    expect(trained).toMatchObject({
      adapter: out,
      steps: 8,
      alpha: expect.anything(),
      gpu: { software: expect.any(Boolean) },
    });
    expect(trained.losses).toHaveLength(8);
    expect(trained.lastLoss).toBeLessThan(trained.firstLoss);

    // One rank in the file, also for matrices with a side of 32.
    const config = await readJson(join(out, 'adapter_config.json'));
    expect(config).toMatchObject({ peft_type: 'LORA', r: 48, lora_alpha: 96, rank_pattern: {}, alpha_pattern: {} });
    const { tensors } = readSafetensors(await readFile(join(out, 'adapter_model.safetensors')));
    for (const [name, { shape }] of tensors) expect(shape[name.includes('lora_A') ? 0 : 1], name).toBe(48);
    expect(await readFile(join(out, 'README.md'), 'utf8')).toContain('library_name: peft');

    const bare = await document('eval', '--model', model, '--data', task('test'));
    const adapted = await document('eval', '--model', model, '--data', task('test'), '--adapter', out);
    expect(bare).toMatchObject({ rows: 30, truncatedRows: 0, tokens: adapted.tokens });
    expect(adapted.loss).toBeLessThan(bare.loss - 1);

    const further = join(folder, 'further');
    const second = await document('train', ...common, '--adapter', out, '--steps', '1', '--out', further);
    expect(second.rank).toBe(48);
    expect(second.firstLoss).toBeLessThan(trained.firstLoss - 1);

    const text = await weft('eval', '--model', model, '--data', task('test'), '--adapter', further);
    expect(text.out).toMatch(/loss \(nats\/token\)/);
  }, 120_000);

  it('give the same adapter for the same seed', async () => {
    const once = async (name: string, seed: string) => {
      const options = ['--targets', 'q_proj,v_proj', '--rank', '2', '--steps', '2', '--batch', '2', '--seed', seed];
      await document('train', '--model', model, '--data', task('train'), '--out', join(folder, name), ...options);
      return await readFile(join(folder, name, 'adapter_model.safetensors'));
    };
    const first = await once('a', '7');
    expect(await once('b', '7')).toEqual(first);
    expect(await once('c', '8')).not.toEqual(first);
    expect(await readJson(join(folder, 'a', 'adapter_config.json'))).toMatchObject({
      target_modules: ['q_proj', 'v_proj'],
    });
  });

  it('pad the matrices of a smaller rank to the one asked for, and keep their scale with rslora too', async () => {
    const seeded = (length: number, shift: number) => Float32Array.from({ length }, (_, i) => Math.sin(i + shift) / 50);
    const factors = (name: string, rank: number, out: number) => {
      const module = `model.layers.0.self_attn.${name}`;
      const [a, b] = [seeded(rank * 64, rank), seeded(out * rank, out)];
      return { module, in: 64, out, rank, alpha: 6, scale: scaleOf(6, rank, true), a, b };
    };
    const matrices = new Map([factors('q_proj', 2, 64), factors('v_proj', 4, 32)].map((own) => [own.module, own]));
    const [adapter, out] = [join(folder, 'rslora'), join(folder, 'padded')];
    await mkdir(adapter);
    const files = writeAdapter({ baseModel: model, rslora: true, matrices });
    for (const [name, content] of Object.entries(files)) await writeFile(join(adapter, name), content);
    // A rate too small to move a float32, so that only the padding could change a product.
    const still = ['--steps', '1', '--batch', '1', '--lr', '1e-30'];
    await document(
      'train',
      '--model',
      model,
      '--data',
      task('train'),
      '--adapter',
      adapter,
      '--rank',
      '4',
      ...still,
      '--out',
      out,
    );
    const padded = readAdapter({
      config: await readFile(join(out, 'adapter_config.json'), 'utf8'),
      weights: await readFile(join(out, 'adapter_model.safetensors')),
    });
    expect(padded.rslora).toBe(true);
    for (const [module, own] of matrices) {
      const found = padded.matrices.get(module);
      expect(found?.rank, module).toBe(4);
      expect(found?.scale, module).toBeCloseTo(own.scale, 12);
      expect(found?.a.subarray(0, own.a.length), module).toEqual(own.a);
    }
  });

  it('continue a prompt', async () => {
    const { greedy } = await readJson(join(model, 'golden.json'));
    const result = await document('generate', '--model', model, '--prompt', greedy.prompt, '--max-tokens', '12');
    expect(result.tokens).toEqual(greedy.next_64_tokens.slice(0, 12));
    expect(result.promptTokens).toEqual(greedy.prompt_tokens);
    expect(result.text.length).toBeGreaterThan(0);
  });
});

describe('weft doctor', () => {
  it('describes the device, and the plan of a model', async () => {
    const result = await document('doctor', '--model', model);
    expect(result.gpu.name).not.toBe('');
    expect(result.limits.maxStorageBuffersPerShaderStage).toBeGreaterThanOrEqual(8);
    expect(result.peaks.gflops).toBeGreaterThan(0);
    expect(result.model.parameters).toBe(260_032);
    expect(result.model.rank).toBe(64);
    for (const { memory } of result.model.memory) {
      const { weights, activations, gradients, adapter, optimiser, inputs, uniforms, readback, total } = memory;
      expect(weights + activations + gradients + adapter + optimiser + inputs + uniforms + readback).toBe(total);
    }
    const bare = await weft('doctor');
    expect(bare.out).toMatch(/^GPU adapter: /);
  }, 120_000);
});

describe('wrong use', () => {
  const data = ['--data', task('test')];
  it.each<[string, string[], RegExp]>([
    ['a missing option', ['eval', '--model', model], /--data <file>/],
    ['an unknown command', ['evaluate'], /unknown command/],
    ['no rank', ['train', '--model', model, ...data, '--out', 'x'], /Give --rank R/],
    ['no place for the result', ['train', '--model', model, ...data, '--rank', '2'], /Give --out DIR/],
    ['a rank of 0', ['train', '--model', model, ...data, '--rank', '0', '--out', 'x'], /at least 1/],
    [
      'an unknown projection',
      ['train', '--model', model, ...data, '--rank', '1', '--out', 'x', '--targets', 'k'],
      /"k"/,
    ],
    [
      'rows beyond the context',
      ['train', '--model', model, ...data, '--rank', '1', '--out', 'x', '--seq', '999'],
      /512/,
    ],
    ['half a token', ['generate', '--model', model, '--prompt', 'a', '--max-tokens', '0.5'], /whole number/],
  ])('%s is exit code 2, and says what to write', async (_name, args, message) => {
    const { exitCode, out, err } = await weft(...args);
    expect([exitCode, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });

  it('an adapter and a rank that disagree', async () => {
    const adapter = join(model, 'golden-lora', 'adapter');
    const args = ['train', '--model', model, ...data, '--adapter', adapter, '--rank', '8', '--out', join(folder, 'x')];
    const { exitCode, err } = await weft(...args);
    expect(exitCode).toBe(2);
    expect(err).toMatch(/--rank 8 disagrees with --adapter, which has rank 4/);
  });
});

describe('failures', () => {
  it.each<[string, () => Promise<string[]>, string, RegExp]>([
    [
      'a model folder that is not there',
      async () => ['--model', join(folder, 'no')],
      'no-such-folder',
      /There is no folder/,
    ],
    [
      'a truncated model',
      async () => {
        const broken = join(folder, 'broken');
        await cp(model, broken, { recursive: true });
        const weights = await readFile(join(model, 'model.safetensors'));
        await writeFile(join(broken, 'model.safetensors'), weights.subarray(0, 100_000));
        return ['--model', broken, '--data', task('test')];
      },
      'safetensors-truncated',
      /Fetch it again/,
    ],
    [
      'a data file that is not there',
      async () => ['--model', model, '--data', 'nowhere.jsonl'],
      'no-such-file',
      /nowhere/,
    ],
    [
      'a bad line, by its number',
      async () => {
        const file = join(folder, 'bad.jsonl');
        await writeFile(file, '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n');
        return ['--model', model, '--data', file];
      },
      'data-line',
      /Line 2 of .*bad\.jsonl/,
    ],
    [
      'an empty file',
      async () => {
        await writeFile(join(folder, 'empty.jsonl'), '\n\n');
        return ['--model', model, '--data', join(folder, 'empty.jsonl')];
      },
      'data-empty',
      /no row/,
    ],
    [
      'an adapter of another model',
      async () => {
        const adapter = join(assets, 'models', 'babyllama-105', 'golden-lora', 'adapter');
        return ['--model', model, '--data', task('test'), '--adapter', adapter];
      },
      'adapter-model',
      /another model/,
    ],
    [
      'a folder that is no adapter',
      async () => ['--model', model, '--data', task('test'), '--adapter', model],
      'adapter-missing',
      /adapter_config\.json/,
    ],
  ])('%s is exit code 1 with a typed error', async (_name, args, code, message) => {
    const given = await args();
    const data = given.includes('--data') ? [] : ['--data', task('test')];
    const { exitCode, out, err } = await weft('eval', ...given, ...data, '--json');
    expect(exitCode).toBe(1);
    expect(err).toMatch(message);
    expect(JSON.parse(out)).toMatchObject({ error: { code, message: expect.stringMatching(message) } });
  });

  it('generate refuses an adapter of another model too', async () => {
    const adapter = join(assets, 'models', 'babyllama-105', 'golden-lora', 'adapter');
    const { exitCode, err } = await weft('generate', '--model', model, '--prompt', 'a', '--adapter', adapter);
    expect(exitCode).toBe(1);
    expect(err).toMatch(/belongs to another model/);
  });

  it('rows longer than the context are cut and counted', async () => {
    const file = join(folder, 'long.jsonl');
    await writeFile(file, JSON.stringify({ prompt: 'word '.repeat(600), completion: 'end' }));
    expect(await document('eval', '--model', model, '--data', file)).toMatchObject({ rows: 1, truncatedRows: 1 });
  });
});
