// The reference against an outside truth: two real checkpoints whose losses, logits and gradients PyTorch computed in
// float64 (assets/models/*/golden.json and golden-lora/). Bounds are what rounding of the written values leaves, not more.
import { readFile } from 'node:fs/promises';
import { parseDataLines, parseModelConfig, readAdapter, readSafetensors, toFloat32 } from '@weft/formats';
import { beforeAll, describe, expect, it } from 'vitest';
import { exampleOf } from '../testing/index.ts';
import { type Branch, type ReferenceModel, referenceGradients, referenceLogits, referenceLoss } from './index.ts';

/** Rounding of a float64 sum of some thousand terms in another order. */
const FLOAT64 = 1e-11;
/** Half the distance of float32 numbers from 1, and of numbers written with eight decimals. */
const FLOAT32 = 2 ** -24;
const EIGHT_DECIMALS = 5e-9;

interface Golden {
  tokens: number[];
  loss: number;
  logits_last: number[];
  top5_per_position: { ids: number[]; logits: number[] }[];
  lora: {
    rank: number;
    alpha: number;
    targets: string[];
    loss: number;
    grad: Record<string, { A_l2: number; A_first8: number[]; B_l2: number; B_first8: number[] }>;
  };
}

const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));
const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  norm(Array.from(b, (value, i) => value - (a[i] ?? Number.NaN)));

describe.each(['stories260K', 'babyllama-105'])('%s', (name) => {
  const read = (file: string) => readFile(new URL(`../../../../assets/models/${name}/${file}`, import.meta.url));
  const text = async (file: string) => new TextDecoder().decode(await read(file));
  let model: ReferenceModel;
  let golden: Golden;
  beforeAll(async () => {
    const { tensors } = readSafetensors(await read('model.safetensors'));
    const weight = (tensor: string) => {
      const raw = tensors.get(tensor);
      if (!raw) throw new Error(`${name} has no ${tensor}.`);
      return toFloat32(raw, tensor);
    };
    model = { config: parseModelConfig(await text('config.json')), weight };
    golden = JSON.parse(await text('golden.json'));
  });

  it('has the golden loss and logits', () => {
    const { tokens, loss, logits_last } = golden;
    const all = referenceLogits(model, null, tokens);
    const last = all.subarray((tokens.length - 1) * model.config.vocabSize);
    expect(last.length).toBe(logits_last.length);
    for (const [i, logit] of logits_last.entries())
      expect(Math.abs((last[i] ?? 0) - logit)).toBeLessThan(EIGHT_DECIMALS + FLOAT64);
    const ours = referenceLoss(model, null, [exampleOf(tokens, tokens)]);
    expect(Math.abs(ours / loss - 1)).toBeLessThan(FLOAT64);
  });

  it('has the golden gradients of an adapter given by a formula', () => {
    const { rank, alpha, targets, loss, grad } = golden.lora;
    const { config } = model;
    // A[j] = 0.05 sin(0.1 j + layer), B[j] = 0.05 cos(0.1 j + layer), as golden.json says.
    const matrices = new Map<string, Branch>();
    for (let layer = 0; layer < config.layers; layer += 1) {
      for (const target of targets) {
        const out = (target === 'q_proj' ? config.heads : config.kvHeads) * config.headSize;
        const a = Float64Array.from({ length: rank * config.hiddenSize }, (_, j) => 0.05 * Math.sin(0.1 * j + layer));
        const b = Float64Array.from({ length: out * rank }, (_, j) => 0.05 * Math.cos(0.1 * j + layer));
        matrices.set(`model.layers.${layer}.self_attn.${target}`, { a, b, scale: alpha / rank });
      }
    }
    const { tokens } = golden;
    const examples = [exampleOf(tokens, tokens)];
    const ours = referenceGradients(model, { matrices }, examples);
    expect(Math.abs(ours.loss / loss - 1)).toBeLessThan(FLOAT64);
    expect(Object.keys(grad).length).toBe(matrices.size);
    for (const [tensor, expected] of Object.entries(grad)) {
      const found = ours.gradients.get(tensor.replace(/\.weight$/, ''));
      expect(Math.abs(norm(found?.a ?? []) / expected.A_l2 - 1), tensor).toBeLessThan(FLOAT64);
      expect(Math.abs(norm(found?.b ?? []) / expected.B_l2 - 1), tensor).toBeLessThan(FLOAT64);
      expect(distance(found?.a ?? [], expected.A_first8) / norm(expected.A_first8), tensor).toBeLessThan(FLOAT64);
      expect(distance(found?.b ?? [], expected.B_first8) / norm(expected.B_first8), tensor).toBeLessThan(FLOAT64);
    }
  });

  it('has the golden gradients of an adapter on all projections, over rows with prompts of unequal length', async () => {
    const folder = 'golden-lora';
    const adapter = readAdapter({
      config: await text(`${folder}/adapter/adapter_config.json`),
      weights: await read(`${folder}/adapter/adapter_model.safetensors`),
    });
    const rows = parseDataLines(await text(`${folder}/data.jsonl`));
    const examples = rows.map((row) => {
      if (row.kind !== 'tokens') throw new Error('The golden rows are tokens.');
      return exampleOf(row.inputIds, row.labels);
    });
    const expected: { loss: number } = JSON.parse(await text(`${folder}/golden.json`));
    const { loss, gradients } = referenceGradients(model, adapter, examples);
    expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(FLOAT64);
    const { tensors } = readSafetensors(await read(`${folder}/golden.safetensors`));
    expect(tensors.size).toBe(2 * gradients.size);
    for (const [module, { a, b }] of gradients) {
      for (const [factor, ours] of [
        ['A', a],
        ['B', b],
      ] as const) {
        const tensor = tensors.get(`base_model.model.${module}.lora_${factor}.weight`);
        const theirs = tensor ? toFloat32(tensor) : new Float32Array();
        expect(distance(ours, theirs) / norm(theirs), module).toBeLessThan(FLOAT32);
      }
    }
  });
});
