import { parseModelConfig, readSafetensors, writeFactors } from '@weft/formats';
import { readAsset } from '@weft/wgsl-kernels/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { adaptedMatrices, adapterFromBlob, checkAdapter, factorBytes, initialAdapter, plainSpec } from './adapter.ts';

type Config = ReturnType<typeof parseModelConfig>;
const configOf = async (model: string) =>
  parseModelConfig(new TextDecoder().decode(await readAsset(`assets/models/${model}/config.json`)));

describe('adapter', () => {
  let config: Config;
  let other: Config;
  beforeAll(async () => {
    config = await configOf('stories260K');
    other = await configOf('babyllama-105');
  });

  it('starts with ΔW = 0 and rows that depend on seed and matrix only', () => {
    const { matrices } = initialAdapter(config, plainSpec(4), 'seed');
    expect(matrices.size).toBe(7 * config.layers);
    for (const { a, b, in: columns, scale, rank } of matrices.values()) {
      expect([rank, scale]).toEqual([4, 2]);
      expect(b.every((value) => value === 0)).toBe(true);
      expect(a.every((value) => Math.abs(value) <= 1 / Math.sqrt(columns))).toBe(true);
      expect(new Set(a).size).toBeGreaterThan(a.length / 2);
    }
    const module = 'model.layers.0.self_attn.q_proj';
    const again = initialAdapter(config, plainSpec(4, 8, ['q_proj']), 'seed').matrices.get(module)?.a;
    expect(again).toEqual(matrices.get(module)?.a);
    expect(initialAdapter(config, plainSpec(4), 'else').matrices.get(module)?.a).not.toEqual(again);
    // Nested: the first rows of a higher rank are the rows of a lower one.
    expect(initialAdapter(config, plainSpec(8), 'seed').matrices.get(module)?.a.slice(0, again?.length)).toEqual(again);
  });

  it('has no rank above the smaller side of a matrix, at the same scale', () => {
    const matrices = adaptedMatrices(config, plainSpec(50, 100));
    const key = matrices.find(({ module }) => module.endsWith('0.self_attn.k_proj'));
    expect(key).toMatchObject({ in: 64, out: 32, rank: 32, alpha: 64, scale: 2 });
    expect(matrices.find(({ module }) => module.endsWith('0.mlp.up_proj'))).toMatchObject({ rank: 50, scale: 2 });
  });

  it('honours ranks of single matrices', () => {
    const spec = { ...plainSpec(2), rankPattern: { 'layers.1.mlp.up_proj': 6 }, alphaPattern: { up_proj: 12 } };
    const ranks = new Map(adaptedMatrices(config, spec).map(({ module, rank, scale }) => [module, [rank, scale]]));
    expect(ranks.get('model.layers.1.mlp.up_proj')).toEqual([6, 2]);
    expect(ranks.get('model.layers.0.mlp.up_proj')).toEqual([2, 6]);
    expect(ranks.get('model.layers.1.mlp.down_proj')).toEqual([2, 2]);
  });

  it('knows the bytes of an upload', () => {
    const spec = plainSpec(5);
    const { tensors } = readSafetensors(writeFactors(initialAdapter(config, spec, 's').matrices.values()));
    const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes.length, 0);
    expect(factorBytes(adaptedMatrices(config, spec))).toBe(bytes);
  });

  it('reads start weights of exactly the granted ranks, also where a rank was cut', () => {
    for (const rank of [3, 50]) {
      const start = initialAdapter(config, plainSpec(rank), 's');
      const read = adapterFromBlob(config, plainSpec(rank), writeFactors(start.matrices.values()));
      expect(read.matrices.size).toBe(start.matrices.size);
      for (const [module, { a, rank: own, scale }] of start.matrices)
        expect(read.matrices.get(module)).toMatchObject({ a, rank: own, scale });
    }
  });

  it('refuses start weights of other ranks, of another model, or incomplete ones', () => {
    const blob = (spec: ReturnType<typeof plainSpec>, from = config) =>
      writeFactors(initialAdapter(from, spec, 's').matrices.values());
    const attempt = (bytes: Uint8Array) => () => adapterFromBlob(config, plainSpec(4), bytes);
    expect(attempt(blob(plainSpec(8)))).toThrow(/lora_A \[8,\d+\].*rank 4/);
    expect(attempt(blob(plainSpec(4), other))).toThrow(expect.objectContaining({ code: 'adapter-model' }));
    expect(attempt(blob(plainSpec(4, 8, ['q_proj'])))).toThrow(expect.objectContaining({ code: 'rank-mismatch' }));
    expect(() => checkAdapter(config, initialAdapter(other, plainSpec(2), 's'))).toThrow(/belongs to another model/);
  });
});
