import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  adapterConfig,
  alphaOf,
  type LoraAdapter,
  type LoraFactors,
  padRank,
  parsePeftTensorName,
  peftTensorName,
  rankOf,
  readAdapter,
  readAdapterLayout,
  readFactor,
  scaleOf,
  uniformRank,
  writeAdapter,
} from './peft.ts';
import { parseSafetensorsHeader, readSafetensors, toFloat32 } from './safetensors.ts';
import { type TensorToWrite, writeSafetensors } from './safetensors-write.ts';

const GOLDEN = new URL('../../../assets/models/stories260K/golden-lora/adapter/', import.meta.url);

const ramp = (length: number, step: number): Float32Array => Float32Array.from({ length }, (_, i) => (i + 1) * step);

function factorsOf(
  module: string,
  out: number,
  inner: number,
  rank: number,
  alpha: number,
  rslora = false,
): LoraFactors {
  const scale = scaleOf(alpha, rank, rslora);
  return { module, out, in: inner, rank, alpha, scale, a: ramp(rank * inner, 0.01), b: ramp(out * rank, -0.02) };
}

const adapterOf = (matrices: LoraFactors[], rslora = false): LoraAdapter => ({
  baseModel: 'stories260K',
  rslora,
  matrices: new Map(matrices.map((factors) => [factors.module, factors])),
});

const reread = (adapter: LoraAdapter, dtype?: 'F32' | 'F16'): LoraAdapter => {
  const files = writeAdapter(adapter, dtype);
  return readAdapter({ config: files['adapter_config.json'], weights: files['adapter_model.safetensors'] });
};

const MODULE = 'model.layers.0.self_attn.q_proj';
const plainConfig = { peft_type: 'LORA', r: 2, lora_alpha: 4 };
const plainTensors = (): TensorToWrite[] => [
  { name: peftTensorName(MODULE, 'A'), dtype: 'F32', shape: [2, 3], data: ramp(6, 1) },
  { name: peftTensorName(MODULE, 'B'), dtype: 'F32', shape: [5, 2], data: ramp(10, 1) },
];
const read = (config: object = plainConfig, tensors: TensorToWrite[] = plainTensors()) =>
  readAdapter({ config: JSON.stringify(config), weights: writeSafetensors(tensors) });

describe('readAdapter', () => {
  it('reads what PEFT wrote', () => {
    const adapter = readAdapter({
      config: readFileSync(new URL('adapter_config.json', GOLDEN), 'utf8'),
      weights: readFileSync(new URL('adapter_model.safetensors', GOLDEN)),
    });
    expect(adapter.baseModel).toBe('stories260K');
    expect(adapter.matrices.size).toBe(35);
    expect(adapter.matrices.get('model.layers.4.mlp.down_proj')).toMatchObject({
      out: 64,
      in: 172,
      rank: 4,
      alpha: 8,
      scale: 2,
    });
    for (const { rank, out, in: inner, a, b } of adapter.matrices.values()) {
      expect([a.length, b.length]).toEqual([rank * inner, out * rank]);
      expect(a.some((value) => value !== 0)).toBe(true);
    }
  });

  it('takes rank and alpha from patterns as PEFT does: a regular expression that ends the name, the first match winning', () => {
    const spec = {
      rank: 8,
      alpha: 16,
      rankPattern: { 'layers\\.0\\..*': 4, q_proj: 2, _proj: 64, 'model.layers.[12].mlp.up_proj': 30 },
      alphaPattern: { 'mlp.up_proj': 60, '^model.layers.3.self_attn.q_proj': 1 },
    };
    expect(rankOf(spec, 'model.layers.0.self_attn.q_proj')).toBe(4);
    expect(rankOf(spec, 'model.layers.1.self_attn.q_proj')).toBe(2);
    expect(rankOf(spec, 'model.layers.1.self_attn.xq_proj')).toBe(8);
    expect(rankOf(spec, 'model.layers.2.mlp.up_proj')).toBe(30);
    expect(rankOf(spec, 'model.layers.3.mlp.up_proj')).toBe(8);
    expect(alphaOf(spec, 'model.layers.3.mlp.up_proj')).toBe(60);
    expect(alphaOf(spec, 'model.layers.3.self_attn.q_proj')).toBe(1);
    expect(alphaOf(spec, 'model.layers.3.self_attn.k_proj')).toBe(16);
  });

  it('scales by α/r, and by α/√r with rslora', () => {
    expect(read().matrices.get(MODULE)?.scale).toBe(2);
    expect(read({ ...plainConfig, use_rslora: true }).matrices.get(MODULE)?.scale).toBe(4 / Math.sqrt(2));
    expect(read({ ...plainConfig, alpha_pattern: { q_proj: 3 } }).matrices.get(MODULE)).toMatchObject({
      alpha: 3,
      scale: 1.5,
    });
  });

  it('accepts harmless and unset options, and what it does not know', () => {
    const config = {
      ...plainConfig,
      bias: 'none',
      use_dora: false,
      modules_to_save: null,
      layer_replication: [],
      lora_dropout: 0.1,
    };
    expect(read({ ...config, init_lora_weights: true, target_modules: ['q_proj'], revision: null }).matrices.size).toBe(
      1,
    );
  });

  const configs: [string, object | string, RegExp][] = [
    ['no JSON', '{', /is not JSON/],
    ['no object', 'null', /expected object/],
    ['another method', { ...plainConfig, peft_type: 'IA3' }, /peft_type/],
    ['no rank', { peft_type: 'LORA', lora_alpha: 1 }, /: r: /],
    ['rank 0', { ...plainConfig, r: 0 }, /: r: /],
    ['no alpha', { peft_type: 'LORA', r: 2 }, /lora_alpha/],
    ['alpha 0', { ...plainConfig, lora_alpha: 0 }, /lora_alpha/],
    ['a rank pattern of fractions', { ...plainConfig, rank_pattern: { q_proj: 1.5 } }, /rank_pattern\.q_proj/],
    ['a broken pattern', { ...plainConfig, rank_pattern: { '(q_proj': 2 } }, /\(q_proj is not a regular expression/],
    ['bias', { ...plainConfig, bias: 'lora_only' }, /bias "lora_only" is not supported/],
    ['a bias of LoRA', { ...plainConfig, lora_bias: true }, /lora_bias true is not supported/],
    ['DoRA', { ...plainConfig, use_dora: true }, /use_dora true is not supported/],
    ['QALoRA', { ...plainConfig, use_qalora: true }, /use_qalora true/],
    ['transposed weights', { ...plainConfig, fan_in_fan_out: true }, /fan_in_fan_out true is not supported/],
    ['whole modules', { ...plainConfig, modules_to_save: ['lm_head'] }, /modules_to_save is not supported/],
    ['repeated layers', { ...plainConfig, layer_replication: [[0, 2]] }, /layer_replication is not supported/],
    ['trained tokens', { ...plainConfig, trainable_token_indices: [1] }, /trainable_token_indices/],
    ['a changed base', { ...plainConfig, init_lora_weights: 'pissa' }, /init_lora_weights "pissa" is not supported/],
  ];
  it.each(configs)('refuses by name: %s', (_, config, message) => {
    const work = () =>
      readAdapter({
        config: typeof config === 'string' ? config : JSON.stringify(config),
        weights: writeSafetensors(plainTensors()),
      });
    expect(work).toThrow(expect.objectContaining({ name: 'FormatError', code: 'adapter-config' }));
    expect(work).toThrow(message);
  });

  const [a, b] = plainTensors() as [TensorToWrite, TensorToWrite];
  const poisoned = (tensor: TensorToWrite, value: number): TensorToWrite => ({
    ...tensor,
    data: Float32Array.from(tensor.data, (old, i) => (i === 1 ? value : old)),
  });
  const weights: [string, TensorToWrite[], RegExp][] = [
    ['nothing', [], /holds no LoRA factor/],
    ['only A', [a], /q_proj has no lora_B/],
    ['only B', [b], /q_proj has no lora_A/],
    ['a foreign tensor', [a, b, { ...a, name: 'lm_head.weight' }], /lm_head\.weight is not a LoRA factor/],
    ['an embedding', [a, b, { ...a, name: 'base_model.model.embed.lora_embedding_A' }], /lora_embedding_A is not/],
    ['a flat factor', [{ ...a, shape: [6] }, b], /factors of .*q_proj are not matrices/],
    ['another rank in A', [{ ...a, shape: [3, 2] }, b], /lora_A \[3,2\] and lora_B \[5,2\] where .* rank 2/],
    ['another rank in B', [a, { ...b, shape: [2, 5] }], /lora_B \[2,5\] where the configuration says rank 2/],
    ['NaN in A', [poisoned(a, Number.NaN), b], /q_proj holds NaN or infinity/],
    ['infinity in B', [a, poisoned(b, Number.NEGATIVE_INFINITY)], /q_proj holds NaN or infinity/],
  ];
  it.each(weights)('refuses by name: %s', (_, tensors, message) => {
    expect(() => read(plainConfig, tensors)).toThrow(expect.objectContaining({ code: 'adapter-tensor' }));
    expect(() => read(plainConfig, tensors)).toThrow(message);
  });

  it('passes on what is wrong with the safetensors file', () => {
    const bytes = writeSafetensors(plainTensors());
    const work = () =>
      readAdapter({ config: JSON.stringify(plainConfig), weights: bytes.subarray(0, bytes.length - 1) });
    expect(work).toThrow(expect.objectContaining({ code: 'safetensors-truncated' }));
  });
});

describe('readAdapterLayout', () => {
  const header = (tensors: TensorToWrite[]) => {
    const weights = writeSafetensors(tensors);
    return { weights, header: parseSafetensorsHeader(weights, weights.length) };
  };

  it('says of an adapter what readAdapter does, and where its factors are, from the header alone', () => {
    const config = JSON.stringify({ ...plainConfig, base_model_name_or_path: 'org/model', use_rslora: true });
    const { weights, header: read } = header(plainTensors());
    const { matrices, ...about } = readAdapterLayout({ config, header: read });
    const { matrices: whole, ...same } = readAdapter({ config, weights });
    expect(about).toEqual(same);
    expect([...matrices.keys()]).toEqual([...whole.keys()]);
    for (const [module, { a, b, ...pair }] of matrices) {
      const factors = [a, b].map(({ begin, end, dtype, shape }) =>
        readFactor({ dtype, shape, bytes: weights.subarray(begin, end) }, module),
      );
      expect({ ...pair, a: factors[0], b: factors[1] }).toEqual(whole.get(module));
    }
  });

  it('refuses what does not fit the configuration, and leaves values to who reads them', () => {
    const [a, b] = plainTensors() as [TensorToWrite, TensorToWrite];
    const config = JSON.stringify(plainConfig);
    const tensor = expect.objectContaining({ code: 'adapter-tensor' });
    expect(() => readAdapterLayout({ config, header: header([a]).header })).toThrow(tensor);
    expect(() => readAdapterLayout({ config: '{', header: header([a, b]).header })).toThrow(
      expect.objectContaining({ code: 'adapter-config' }),
    );
    const poisoned = { ...a, data: a.data.map((value, i) => (i === 1 ? Number.NaN : value)) };
    const { weights, header: read } = header([poisoned, b]);
    const pair = readAdapterLayout({ config, header: read }).matrices.get(MODULE);
    if (!pair) throw new Error('no pair');
    const { dtype, shape, begin, end } = pair.a;
    expect(() => readFactor({ dtype, shape, bytes: weights.subarray(begin, end) }, MODULE)).toThrow(
      /q_proj holds NaN or infinity/,
    );
  });
});

describe('writeAdapter', () => {
  it('gives back what it was given, at mixed ranks and alphas', () => {
    const matrix = fc.record({
      out: fc.integer({ min: 1, max: 6 }),
      in: fc.integer({ min: 1, max: 6 }),
      rank: fc.integer({ min: 1, max: 5 }),
      alpha: fc.constantFrom(0.5, 2, 16, 16 / 3),
    });
    fc.assert(
      fc.property(fc.array(matrix, { minLength: 1, maxLength: 14 }), fc.boolean(), (drawn, rslora) => {
        // Twelve layers: `layers.1` must not take what is said of `layers.11`.
        const adapter = adapterOf(
          drawn.map(({ out, in: inner, rank, alpha }, layer) =>
            factorsOf(`model.layers.${layer}.mlp.up_proj`, out, inner, rank, alpha, rslora),
          ),
          rslora,
        );
        const back = reread(adapter);
        expect(back.rslora).toBe(rslora);
        expect([...back.matrices.values()].sort((x, y) => (x.module < y.module ? -1 : 1))).toEqual(
          [...adapter.matrices.values()].sort((x, y) => (x.module < y.module ? -1 : 1)),
        );
      }),
    );
  });

  it('writes one rank and alpha plainly, and the exceptions as patterns', () => {
    const uniform = JSON.parse(
      adapterConfig(adapterOf([factorsOf('m.0.q_proj', 4, 4, 2, 4), factorsOf('m.1.k_proj', 4, 4, 2, 4)])),
    );
    expect(uniform).toMatchObject({
      r: 2,
      lora_alpha: 4,
      rank_pattern: {},
      alpha_pattern: {},
      target_modules: ['k_proj', 'q_proj'],
    });
    const mixed = JSON.parse(
      adapterConfig(
        adapterOf([
          factorsOf('m.0.q_proj', 4, 4, 2, 4),
          factorsOf('m.1.q_proj', 4, 4, 2, 4),
          factorsOf('m.2.q_proj', 4, 4, 3, 6),
        ]),
      ),
    );
    expect(mixed).toMatchObject({
      r: 2,
      rank_pattern: { 'm\\.2\\.q_proj': 3 },
      alpha_pattern: { 'm\\.2\\.q_proj': 6 },
    });
  });

  it('keeps dropout, rslora and patterns on the way through another file', () => {
    const adapter = adapterOf(
      [factorsOf('m.0.q_proj', 4, 4, 2, 4, true), factorsOf('m.1.q_proj', 4, 4, 3, 5, true)],
      true,
    );
    expect(reread({ ...adapter, dropout: 0.05 })).toEqual({ ...adapter, dropout: 0.05 });
    expect(reread(adapter)).toEqual(adapter);
    const config = JSON.parse(adapterConfig({ ...adapter, dropout: 0.05 }));
    expect(config).toMatchObject({ lora_dropout: 0.05, use_rslora: true, rank_pattern: { 'm\\.1\\.q_proj': 3 } });
    for (const lora_dropout of [-0.1, 1, 'a'])
      expect(() => read({ ...plainConfig, lora_dropout })).toThrow(/adapter_config\.json: lora_dropout/);
    expect(read({ ...plainConfig, lora_dropout: null }).dropout).toBeUndefined();
  });

  it("uses PEFT's names, and half precision when asked", () => {
    const files = writeAdapter(adapterOf([factorsOf(MODULE, 4, 3, 2, 4)]), 'F16');
    const { tensors } = readSafetensors(files['adapter_model.safetensors']);
    const lora = tensors.get(`base_model.model.${MODULE}.lora_B.weight`);
    expect(lora).toMatchObject({ dtype: 'F16', shape: [4, 2] });
    expect(lora && toFloat32(lora)[0]).toBeCloseTo(-0.02, 4);
    expect(parsePeftTensorName(peftTensorName(MODULE, 'B'))).toEqual({ module: MODULE, factor: 'B' });
    for (const name of [
      `${MODULE}.lora_A.weight`,
      'base_model.model.lora_A.weight',
      `base_model.model.${MODULE}.lora_C.weight`,
    ])
      expect(parsePeftTensorName(name)).toBeNull();
  });
});

describe('padRank', () => {
  const product = ({ out, in: inner, rank, scale, a, b }: LoraFactors): number[] =>
    Array.from({ length: out * inner }, (_, k) => {
      let sum = 0;
      for (let r = 0; r < rank; r += 1)
        sum += (b[Math.floor(k / inner) * rank + r] ?? Number.NaN) * (a[r * inner + (k % inner)] ?? Number.NaN);
      return scale * sum;
    });

  it('keeps the product, and the scale that a reader finds', () => {
    for (const rslora of [false, true]) {
      const factors = factorsOf(MODULE, 4, 3, 2, 5, rslora);
      const padded = padRank(factors, 7, rslora);
      expect([padded.rank, padded.a.length, padded.b.length]).toEqual([7, 21, 28]);
      expect(product(padded)).toEqual(product(factors));
      expect(reread(adapterOf([padded], rslora)).matrices.get(MODULE)?.scale).toBeCloseTo(factors.scale, 12);
    }
  });

  it('does not make a rank smaller', () => {
    expect(() => padRank(factorsOf(MODULE, 4, 3, 2, 4), 1)).toThrow(/q_proj: rank 2 cannot be padded to 1/);
  });
});

describe('uniformRank', () => {
  it.each([false, true])('pads every matrix to the largest rank or the one asked for (rslora %s)', (rslora) => {
    // The scale is 2 in each, so that one alpha holds for all.
    const alpha = (rank: number) => 2 * (rslora ? Math.sqrt(rank) : rank);
    const mixed = adapterOf(
      [2, 5, 49].map((rank, i) => factorsOf(`m.${i}.q_proj`, 4, 3, rank, alpha(rank), rslora)),
      rslora,
    );
    for (const [asked, rank] of [
      [undefined, 49],
      [64, 64],
    ] as const) {
      const adapter = uniformRank({ ...mixed, dropout: 0.1 }, asked);
      expect(JSON.parse(adapterConfig(adapter))).toMatchObject({
        r: rank,
        rank_pattern: {},
        alpha_pattern: {},
        lora_dropout: 0.1,
      });
      for (const [module, { scale, a, b }] of reread(adapter).matrices) {
        const before = mixed.matrices.get(module);
        expect(scale).toBeCloseTo(2, 12);
        expect([...a.subarray(0, before?.a.length)]).toEqual([...(before?.a ?? [])]);
        expect(a.subarray(before?.a.length).every((value) => value === 0)).toBe(true);
        expect([...b].filter((value) => value !== 0)).toEqual([...(before?.b ?? [])]);
      }
    }
    expect(() => uniformRank(mixed, 48)).toThrow(/m\.2\.q_proj: rank 49 cannot be padded to 48/);
  });
});
