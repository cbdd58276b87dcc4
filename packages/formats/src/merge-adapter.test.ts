import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inMemory } from './byte-source.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { type MergeAdapterOptions, mergeAdapter } from './merge-adapter.ts';
import { parseModelConfig } from './model-config.ts';
import { loraTargets, modelTensors } from './model-tensors.ts';
import { type LoraAdapter, type LoraFactors, scaleOf } from './peft.ts';
import { readSafetensors } from './safetensors.ts';
import { encodeElements, writeSafetensors } from './safetensors-write.ts';

const CONFIG = JSON.stringify({
  architectures: ['Qwen2ForCausalLM'],
  hidden_size: 6,
  intermediate_size: 5,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  vocab_size: 7,
  tie_word_embeddings: true,
});
const config = parseModelConfig(CONFIG);
const TARGETS = loraTargets(config);

/** Numbers without a pattern, the same each time. */
const wave = (length: number, seed: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(1 + seed * 7.7 + i * 1.3));

async function checkpointOf(dtype: 'F32' | 'F16' | 'BF16'): Promise<Checkpoint> {
  const tensors = modelTensors(config).map(({ name, shape }, k) => {
    const length = shape.reduce((product, size) => product * size, 1);
    return { name, shape, dtype, data: wave(length, k) };
  });
  const files = { 'config.json': new TextEncoder().encode(CONFIG), 'model.safetensors': writeSafetensors(tensors) };
  return openCheckpoint(new Map(Object.entries(files).map(([name, bytes]) => [name, inMemory(bytes)])));
}

function adapterOf(ranks: readonly number[], rslora = false): LoraAdapter {
  const matrices = ranks.map((rank, k): LoraFactors => {
    const { module, in: columns, out } = TARGETS[(k * 3) % TARGETS.length] ?? { module: '', in: 0, out: 0 };
    const alpha = 3 + k;
    const factors = { a: wave(rank * columns, 100 + k), b: wave(out * rank, 200 + k) };
    return { module, in: columns, out, rank, alpha, scale: scaleOf(alpha, rank, rslora), ...factors };
  });
  return { baseModel: 'm', rslora, matrices: new Map(matrices.map((factors) => [factors.module, factors])) };
}

async function merged(checkpoint: Checkpoint, adapter: LoraAdapter, options?: MergeAdapterOptions): Promise<Buffer> {
  const { plan, pieces } = mergeAdapter(checkpoint, adapter, options);
  const parts: Uint8Array[] = [];
  for await (const piece of pieces()) parts.push(piece.slice());
  const file = Buffer.concat(parts);
  expect(file.length).toBe(plan.size);
  return file;
}

/** W + s·B·A by the definition, in float64. */
function expected(w: Float32Array, factors: LoraFactors | undefined): Float64Array {
  if (!factors) return Float64Array.from(w);
  const { in: columns, rank, scale, a, b } = factors;
  return Float64Array.from(w, (weight, i) => {
    let sum = 0;
    for (let r = 0; r < rank; r += 1)
      sum += (b[Math.floor(i / columns) * rank + r] ?? Number.NaN) * (a[r * columns + (i % columns)] ?? Number.NaN);
    return weight + scale * sum;
  });
}

describe('mergeAdapter', () => {
  it('is W + s·B·A, rounded once to the type of the file, in pieces of any size', async () => {
    const dtypes = fc.constantFrom('F32' as const, 'F16' as const, 'BF16' as const);
    const ranks = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(
        dtypes,
        fc.option(dtypes, { nil: undefined }),
        ranks,
        fc.boolean(),
        fc.integer({ min: 1, max: 40 }),
        async (dtype, asked, drawn, rslora, pieceElements) => {
          const checkpoint = await checkpointOf(dtype);
          const adapter = adapterOf(drawn, rslora);
          const options = asked ? { dtype: asked, pieceElements } : { pieceElements };
          const file = await merged(checkpoint, adapter, options);
          const { tensors, metadata } = readSafetensors(file);
          expect(metadata).toEqual({ format: 'pt' });
          expect([...tensors.keys()].sort()).toEqual(
            modelTensors(config)
              .map(({ name }) => name)
              .sort(),
          );
          for (const { name, shape } of modelTensors(config)) {
            const raw = tensors.get(name);
            if (!raw) throw new Error(`${name} is gone`);
            expect([raw.dtype, raw.shape]).toEqual([asked ?? dtype, shape]);
            const w = await checkpoint.read(
              name,
              0,
              shape.reduce((product, size) => product * size, 1),
            );
            const wanted = expected(w, adapter.matrices.get(name.replace(/\.weight$/, '')));
            expect(Buffer.from(raw.bytes).equals(encodeElements(asked ?? dtype, wanted))).toBe(true);
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('changes what it adapts and nothing else, and opens as a checkpoint', async () => {
    const checkpoint = await checkpointOf('F16');
    const adapter = adapterOf([2, 3]);
    const file = await merged(checkpoint, adapter, { dtype: 'F32' });
    const files = { 'config.json': new TextEncoder().encode(CONFIG), 'model.safetensors': file };
    const again = await openCheckpoint(new Map(Object.entries(files).map(([name, bytes]) => [name, inMemory(bytes)])));
    for (const { name, shape } of modelTensors(config)) {
      const elements = shape.reduce((product, size) => product * size, 1);
      const [before, after] = [await checkpoint.read(name, 0, elements), await again.read(name, 0, elements)];
      const isAdapted = adapter.matrices.has(name.replace(/\.weight$/, ''));
      expect([name, before.some((value, i) => value !== after[i])]).toEqual([name, isAdapted]);
    }
  });

  it('takes no more of the checkpoint at once than a piece', async () => {
    const checkpoint = await checkpointOf('F32');
    const counts: number[] = [];
    const counting: Checkpoint = {
      ...checkpoint,
      read: (name, first, count) => {
        counts.push(count);
        return checkpoint.read(name, first, count);
      },
    };
    await merged(counting, adapterOf([2]), { pieceElements: 12 });
    expect(Math.max(...counts)).toBe(12);
    expect(counts.length).toBeGreaterThan(modelTensors(config).length);
  });

  it('refuses an adapter of another model, and a sum the type cannot hold', async () => {
    const checkpoint = await checkpointOf('F16');
    const [factors] = adapterOf([2]).matrices.values();
    if (!factors) throw new Error('there are no factors');
    const changed = (change: Partial<LoraFactors>): LoraAdapter => {
      const other = { ...factors, ...change };
      return { baseModel: '', rslora: false, matrices: new Map([[other.module, other]]) };
    };
    const refuse = (change: Partial<LoraFactors>, message: RegExp) => {
      expect(() => mergeAdapter(checkpoint, changed(change))).toThrow(
        expect.objectContaining({ code: 'adapter-tensor' }),
      );
      expect(() => mergeAdapter(checkpoint, changed(change))).toThrow(message);
    };
    refuse(
      { module: 'model.layers.2.self_attn.q_proj' },
      /layers\.2\.self_attn\.q_proj, which the model does not have/,
    );
    refuse({ module: 'lm_head' }, /lm_head/);
    refuse({ out: 7 }, /q_proj is \[7, 6\], the model's \[6, 6\]/);
    await expect(merged(checkpoint, changed({ scale: 1e6 }))).rejects.toMatchObject({ code: 'safetensors-tensor' });
    await expect(merged(checkpoint, changed({ scale: 1e6 }), { dtype: 'F32' })).resolves.toBeDefined();
  });
});
