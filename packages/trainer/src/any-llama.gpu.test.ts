// Any Llama, not only the two with golden values: odd sizes, a head of its own, one key-value head, ranks that differ, some
// projections left out. Held to a forward pass in plain float64 written here, and gradients by its central differences.
import {
  type ModelConfig,
  type LoraAdapter,
  type LoraFactors,
  modelTensors,
  parseModelConfig,
  writeSafetensors,
} from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Example } from './data/examples.ts';
import { lossAndGradients } from './gradients.ts';
import { type AdapterSpec, initialAdapter } from './lora/adapter.ts';
import { type BaseModel, loadModel } from './model/base-model.ts';
import { GpuModel } from './plan/gpu-model.ts';
import { seededRandom } from './random.ts';

type Matrix = readonly (readonly number[])[];
/** One row each for weights of norms. */
type Weights = ReadonlyMap<string, Matrix>;

const rowsOf = (flat: ArrayLike<number>, width: number): Matrix =>
  Array.from({ length: flat.length / width }, (_, row) => Array.from(flat).slice(row * width, (row + 1) * width));
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);
const times = (x: Matrix, w: Matrix): number[][] => x.map((row) => w.map((column) => dot(row, column)));
const plus = (x: Matrix, y: Matrix, scale = 1): number[][] =>
  x.map((row, i) => row.map((value, j) => value + scale * (y[i]?.[j] ?? 0)));

function normed(x: Matrix, weight: readonly number[], eps: number): number[][] {
  return x.map((row) => {
    const rstd = 1 / Math.sqrt(dot(row, row) / row.length + eps);
    return row.map((value, i) => value * rstd * (weight[i] ?? 0));
  });
}

/** Rotate-half, head by head, by the position of each row. */
function rotated(x: Matrix, headSize: number, theta: number): number[][] {
  const half = headSize / 2;
  return x.map((row, position) =>
    row.map((value, i) => {
      const place = i % headSize;
      const angle = position * theta ** (-(2 * (place % half)) / headSize);
      const other = row[place < half ? i + half : i - half] ?? 0;
      return value * Math.cos(angle) + (place < half ? -other : other) * Math.sin(angle);
    }),
  );
}

function attended(q: Matrix, k: Matrix, v: Matrix, { heads, kvHeads, headSize }: ModelConfig): number[][] {
  const part = (row: readonly number[] | undefined, head: number) =>
    (row ?? []).slice(head * headSize, (head + 1) * headSize);
  return q.map((query, t) =>
    Array.from({ length: heads }, (_, head) => {
      const shared = Math.floor(head / (heads / kvHeads));
      const scores = k.slice(0, t + 1).map((key) => dot(part(query, head), part(key, shared)) / Math.sqrt(headSize));
      const exps = scores.map((score) => Math.exp(score - Math.max(...scores)));
      const total = exps.reduce((sum, value) => sum + value, 0);
      return Array.from({ length: headSize }, (_, d) =>
        exps.reduce((sum, value, j) => sum + (value / total) * (part(v[j], shared)[d] ?? 0), 0),
      );
    }).flat(),
  );
}

/** Cross-entropies of the labelled targets of one example. */
function losses(config: ModelConfig, weights: Weights, adapter: Adapter64, { inputIds, labels }: Example): number[] {
  const weight = (name: string) => weights.get(name) ?? [];
  const norm = (y: Matrix, name: string) => normed(y, weight(`${name}.weight`)[0] ?? [], config.normEpsilon);
  const linear = (x: Matrix, module: string): number[][] => {
    const y = times(x, weight(`${module}.weight`));
    const lora = adapter.get(module);
    if (!lora) return y;
    return plus(y, times(times(x, rowsOf(lora.a, lora.in)), rowsOf(lora.b, lora.rank)), lora.scale);
  };
  const table = weight('model.embed_tokens.weight');
  let x: Matrix = inputIds.map((id) => table[id] ?? []);
  for (let layer = 0; layer < config.layers; layer += 1) {
    const name = `model.layers.${layer}`;
    const h = norm(x, `${name}.input_layernorm`);
    const turn = (y: Matrix) => rotated(y, config.headSize, config.ropeTheta);
    const q = turn(linear(h, `${name}.self_attn.q_proj`));
    const k = turn(linear(h, `${name}.self_attn.k_proj`));
    const attention = attended(q, k, linear(h, `${name}.self_attn.v_proj`), config);
    x = plus(x, linear(attention, `${name}.self_attn.o_proj`));
    const g = norm(x, `${name}.post_attention_layernorm`);
    const up = linear(g, `${name}.mlp.up_proj`);
    const gated = linear(g, `${name}.mlp.gate_proj`).map((row, i) =>
      row.map((value, j) => (value / (1 + Math.exp(-value))) * (up[i]?.[j] ?? 0)),
    );
    x = plus(x, linear(gated, `${name}.mlp.down_proj`));
  }
  const head = config.tiedEmbeddings ? table : weight('lm_head.weight');
  return times(norm(x, 'model.norm'), head).flatMap((logits, t) => {
    const label = labels[t + 1] ?? -100;
    if (label < 0) return [];
    const highest = Math.max(...logits);
    const total = logits.reduce((sum, value) => sum + Math.exp(value - highest), 0);
    return [highest + Math.log(total) - (logits[label] ?? 0)];
  });
}

type Adapter64 = ReadonlyMap<string, { a: Float64Array; b: Float64Array; in: number; rank: number; scale: number }>;

function randomModel(config: object, seed: string): BaseModel {
  const text = JSON.stringify({ architectures: ['LlamaForCausalLM'], ...config });
  const tensors = modelTensors(parseModelConfig(text)).map(({ name, shape }) => {
    const random = seededRandom(seed, name);
    const around = shape.length === 1 ? 1 : 0;
    const length = shape.reduce((product, size) => product * size, 1);
    const data = Float32Array.from({ length }, () => around + 0.8 * (random.uniform() - 0.5));
    return { name, dtype: 'F32' as const, shape, data };
  });
  const files = { 'config.json': new TextEncoder().encode(text), 'model.safetensors': writeSafetensors(tensors) };
  return loadModel(new Map(Object.entries(files)));
}

/** An adapter whose B is not zero, so that A has a gradient too. */
function randomAdapter(config: ModelConfig, spec: AdapterSpec): LoraAdapter {
  const start = initialAdapter(config, spec, 'odd');
  const random = seededRandom('b');
  const matrices = [...start.matrices].map(([module, own]): [string, LoraFactors] => [
    module,
    { ...own, b: own.b.map(() => 0.6 * (random.uniform() - 0.5)) },
  ]);
  return { ...start, matrices: new Map(matrices) };
}

const labelled = (inputIds: number[], prompt: number): Example => ({
  inputIds,
  labels: inputIds.map((id, i) => (i < prompt ? -100 : id)),
  targets: inputIds.length - Math.max(1, prompt),
});

const odd = {
  hidden_size: 18,
  intermediate_size: 23,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  head_dim: 10,
  vocab_size: 37,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-3,
  rope_theta: 500,
  tie_word_embeddings: false,
};
const even = { ...odd, hidden_size: 16, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 4, rope_theta: 20 };
const all = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;

describe.each<[string, object, AdapterSpec]>([
  [
    'odd sizes, a head of its own, ranks by matrix',
    odd,
    { rank: 3, alpha: 5, rankPattern: { up_proj: 5, 'layers.1.self_attn.q_proj': 1 }, alphaPattern: {}, targets: all },
  ],
  [
    'a tied head, attention and one projection only',
    { ...even, tie_word_embeddings: true },
    { rank: 2, alpha: 4, rankPattern: {}, alphaPattern: {}, targets: ['k_proj', 'o_proj', 'gate_proj'] },
  ],
])('a Llama with %s', (_name, fields, spec) => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
  });
  afterAll(() => gpu.destroy());

  it('has the loss and the gradients of its mathematics', async () => {
    const model = randomModel(fields, 'weights');
    const { config } = model;
    const weights = new Map(
      modelTensors(config).map(({ name, shape }) => [name, rowsOf(model.weights.get(name) ?? [], shape.at(-1) ?? 1)]),
    );
    const adapter = randomAdapter(config, spec);
    const examples = [
      labelled([1, 5, 9, 30, 36, 2, 7, 7, 3, 12, 4], 4),
      labelled([1, 8, 3], 0),
      labelled([2, 11, 35, 6, 5], 3),
    ];
    const wide = new Map(
      [...adapter.matrices].map(([module, own]) => [
        module,
        { ...own, a: Float64Array.from(own.a), b: Float64Array.from(own.b) },
      ]),
    );
    const expectedLoss = (): number => {
      const rows = examples.flatMap((example) => losses(config, weights, wide, example));
      return rows.reduce((sum, loss) => sum + loss, 0) / rows.length;
    };

    const { loss, gradients } = await lossAndGradients(await GpuModel.upload(gpu, model), adapter, examples);
    expect(Math.abs(loss / expectedLoss() - 1)).toBeLessThan(1e-5);
    expect([...gradients.keys()].sort()).toEqual([...wide.keys()].sort());
    const step = 1e-4;
    for (const [module, own] of wide) {
      for (const factor of ['a', 'b'] as const) {
        const values = own[factor];
        const ours = gradients.get(module)?.[factor] ?? [];
        expect(ours.length).toBe(values.length);
        // Every element would take minutes; eight spread over the tensor tell as well.
        const sample = Array.from({ length: 8 }, (_, i) => Math.floor(((i + 0.5) * values.length) / 8));
        const expected = sample.map((i) => {
          const value = values[i] ?? 0;
          const at = (shifted: number) => {
            values[i] = shifted;
            return expectedLoss();
          };
          const slope = (at(value + step) - at(value - step)) / (2 * step);
          values[i] = value;
          return slope;
        });
        const error = Math.hypot(...expected.map((value, i) => value - (ours[sample[i] ?? 0] ?? 0)));
        expect(error / Math.hypot(...expected), `${module} ${factor}`).toBeLessThan(1e-4);
      }
    }
  }, 120_000);
});
