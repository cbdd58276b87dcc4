// `weft doctor`'s plans: by arithmetic from config.json alone, within a budget, and the target of Llama 3.2 1B.
import { mkdir, writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { asset, commandLine } from '../testing.ts';
import { registerDoctor } from './doctor.ts';

const { file, weft, document } = commandLine(registerDoctor);

/** config.json of meta-llama/Llama-3.2-1B, as published. */
const LLAMA_1B = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
  vocab_size: 128_256,
  max_position_embeddings: 131_072,
  rms_norm_eps: 1e-5,
  rope_theta: 500_000,
  rope_scaling: {
    factor: 32,
    high_freq_factor: 4,
    low_freq_factor: 1,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  hidden_act: 'silu',
  tie_word_embeddings: true,
  bos_token_id: 128_000,
  eos_token_id: 128_001,
};

interface Memory {
  readonly total: number;
  readonly [part: string]: number;
}

function expectSum({ total, ...memory }: Memory): void {
  const parts = ['weights', 'activations', 'adapter', 'gradients', 'optimiser', 'inputs', 'uniforms', 'readback'];
  expect(parts.reduce((sum, part) => sum + (memory[part] ?? Number.NaN), 0)).toBe(total);
}

describe('weft doctor --plan-only', () => {
  it('plans Llama 3.2 1B in q4, rank 16, 512 tokens, checkpointed, under 1.3 GB', async () => {
    const folder = file('llama');
    await mkdir(folder);
    await writeFile(`${folder}/config.json`, JSON.stringify(LLAMA_1B));
    const options = ['--weights', 'q4', '--rank', '16', '--batch', '1', '--seq', '512', '--checkpoint'];
    const { model } = await document(['doctor', '--plan-only', '--model', folder, ...options]);
    expect(model.parameters).toBe(1_235_814_400);
    expect(model.memory).toHaveLength(1);
    const [{ memory }] = model.memory;
    expectSum(memory);
    expect(memory.total).toBeLessThan(1.3e9);
    // No fewer bytes than four bits a weight, and eight for the embedding.
    expect(memory.weights).toBeGreaterThan((1_235_814_400 + 128_256 * 2048) / 2);
    // A [16, in] and B [out, 16] of all projections, and AdamW's two moments.
    const sides = 16 * (2048 + 2048 + 2 * (2048 + 512) + 2048 + 2048 + 3 * (2048 + 8192));
    expect(memory.adapter).toBe(4 * 16 * sides);
    expect(memory.optimiser).toBe(2 * memory.gradients);

    const { out } = await weft('doctor', '--like', 'llama-3.2-1b', ...options, '--json');
    expect(JSON.parse(out).model.memory).toEqual(model.memory);
  });

  it('chooses the largest rank within a budget, and prints the table', async () => {
    const args = ['doctor', '--plan-only', '--model', asset('stories260K')];
    const free = await document(args);
    expect(free.model.rank).toBe(64);
    for (const { memory } of free.model.memory) expectSum(memory);
    const totals: number[] = free.model.memory.map(({ memory }: { memory: Memory }) => memory.total);
    expect(totals).toEqual([...totals].sort((a, b) => a - b));
    const tight = await document([
      ...args,
      '--budget',
      String((totals[3] ?? 0) / 1e6),
      '--no-checkpoint',
      '--micro-batch',
      '8',
    ]);
    expect(tight.model.rank).toBe(8);
    expect(tight.model.verdicts.map(({ fits }: { fits: boolean }) => fits)).toEqual([
      ...[true, true, true, true],
      ...[false, false, false],
    ]);
    // Free to choose how, it finds room for more.
    const free8 = await document([...args, '--budget', String((totals[3] ?? 0) / 1e6)]);
    expect(free8.model.rank).toBeGreaterThan(8);
    const { out } = await weft(...args);
    expect(out).toMatch(/rank +total +weights +activations +adapter/);
    expect(out).toMatch(/rank 64 is the largest that fits/);
  });

  it.each<[string, string[], number, RegExp]>([
    ['no model', ['--plan-only'], 2, /give --model DIR/],
    ['two models', ['--like', 'x', '--model', 'y'], 2, /give one/],
    ['an unknown shape', ['--like', 'x'], 2, /smollm2-135m/],
    ['a profile without a GPU', ['--profile', '--plan-only', '--model', asset('stories260K')], 2, /--plan-only/],
    ['a profile of no model', ['--profile'], 2, /give --model DIR/],
    ['rows beyond the context', ['--plan-only', '--model', asset('stories260K'), '--seq', '999'], 2, /512/],
    ['a folder without a configuration', ['--plan-only', '--model', asset()], 1, /There is no .*config\.json/],
  ])('%s fails by name', async (_name, args, code, message) => {
    const { exitCode, err } = await weft('doctor', ...args);
    expect(exitCode).toBe(code);
    expect(err).toMatch(message);
  });
});

describe('weft doctor', () => {
  it('falls back on the configuration of a model without weights', async () => {
    const folder = file('bare');
    await mkdir(folder);
    await writeFile(`${folder}/config.json`, JSON.stringify({ ...LLAMA_1B, num_hidden_layers: 1, vocab_size: 512 }));
    const { exitCode, out, err } = await weft('doctor', '--model', folder, '--rank', '4', '--json');
    expect(exitCode).toBe(0);
    expect(err).toMatch(/has no weights; the plan is computed/);
    expect(JSON.parse(out)).toMatchObject({ gpu: { name: expect.anything() }, model: { tried: false, rank: 4 } });
  });

  it('prints what the device reaches, and a step kernel by kernel', async () => {
    const args = ['doctor', '--model', asset('stories260K'), '--profile', '--batch', '2', '--seq', '32', '--rank', '4'];
    const found = await document(args);
    expect(found.peaks).toMatchObject({ gflops: expect.any(Number), gigabytes: expect.any(Number) });
    expect(found.peaks.sweep.length).toBeGreaterThan(10);
    const { step, kernels, rank, shape } = found.profile;
    expect({ rank, shape }).toEqual({ rank: 4, shape: { batch: 2, sequence: 32 } });
    expect(['timestamps', 'repetition']).toContain(kernels.method);
    expect(step.mfu).toBeGreaterThan(0);
    expect(step.mfu).toBeLessThan(1);
    const { out } = await weft(...args);
    expect(out).toMatch(
      /Measured peaks: [\d.]+ GFLOP\/s float32.* GB\/s copying, [\d.]+ GB\/s loaded from caches, [\d.]+ billion exponentials/,
    );
    expect(out).toMatch(/kernel +dispatches +ms +of the step/);
    expect(out).toMatch(/adamw .* % +of (FMA|copy|exp)/);
    expect(out).toMatch(/tokens\/s, LoRA-MFU [\d.]+ %/);
  });
});
