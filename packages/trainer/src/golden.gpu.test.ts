// The whole model against values computed elsewhere in float64 (assets/models/*/golden*): two real checkpoints.
import { parseDataLines, readAdapter, readFactors } from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset, readJsonAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeBatch, oneExamplePerRow } from './data/batches.ts';
import { encodeRows } from './data/examples.ts';
import { evaluateLoss } from './evaluate.ts';
import { generateGreedy, promptTokens } from './generate.ts';
import { lossAndGradients } from './gradients.ts';
import { loadModel, MODEL_FILES } from './model/base-model.ts';
import { Decoder } from './plan/decoder.ts';
import { GpuModel } from './plan/gpu-model.ts';
import { StepGraph } from './plan/step.ts';

interface Golden {
  text: string;
  tokens: number[];
  loss: number;
  logits_last: number[];
  greedy: { prompt: string; prompt_tokens: number[]; next_64_tokens: number[] };
}

interface GoldenLora {
  loss: number;
  targets: number;
  adamw: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
  adamw_losses: number[];
}

const norm = (values: ArrayLike<number>) =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));
const difference = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a, (value, i) => value - (b[i] ?? Number.NaN));

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openTestGpu();
});
afterAll(() => gpu.destroy());

describe.each(['stories260K', 'babyllama-105'])('%s', (name) => {
  const folder = `assets/models/${name}`;
  let model: GpuModel;
  let golden: Golden;
  beforeAll(async () => {
    const files = await Promise.all(
      MODEL_FILES.map(async (file) => [file, await readAsset(`${folder}/${file}`)] as const),
    );
    model = await GpuModel.upload(gpu, await loadModel(new Map(files)));
    golden = await readJsonAsset(`${folder}/golden.json`);
  });
  afterAll(() => model.destroy());

  it('tokenises as the checkpoint’s own tokenizer', () => {
    expect(promptTokens(model, golden.text)).toEqual(golden.tokens);
    expect(promptTokens(model, golden.greedy.prompt)).toEqual(golden.greedy.prompt_tokens);
  });

  it('gives the golden logits', async () => {
    const decoder = await Decoder.create(model, golden.tokens.length);
    const logits = await decoder.extend(golden.tokens);
    decoder.destroy();
    const worst = Math.max(...difference(logits, golden.logits_last).map(Math.abs));
    expect(worst).toBeLessThan(1e-4);
  });

  it('gives the golden loss', async () => {
    const { tokens } = golden;
    const { loss } = await evaluateLoss(model, null, [
      { inputIds: tokens, labels: tokens, targets: tokens.length - 1 },
    ]);
    expect(Math.abs(loss - golden.loss) / golden.loss).toBeLessThan(1e-5);
  });

  it('continues token for token', async () => {
    const { prompt_tokens, next_64_tokens } = golden.greedy;
    expect(await generateGreedy(model, null, prompt_tokens, { maxTokens: 64 })).toEqual(next_64_tokens);
  });

  describe('with the golden adapter', () => {
    const load = async () => {
      const config = new TextDecoder().decode(await readAsset(`${folder}/golden-lora/adapter/adapter_config.json`));
      const adapter = readAdapter({
        config,
        weights: await readAsset(`${folder}/golden-lora/adapter/adapter_model.safetensors`),
      });
      const rows = parseDataLines(new TextDecoder().decode(await readAsset(`${folder}/golden-lora/data.jsonl`)));
      const { examples } = encodeRows(rows, model.model, model.config.maxPositions);
      return { adapter, examples, expected: await readJsonAsset<GoldenLora>(`${folder}/golden-lora/golden.json`) };
    };

    it('gives the golden loss and gradients', async () => {
      const { adapter, examples, expected } = await load();
      const { loss, gradients } = await lossAndGradients(model, adapter, examples);
      expect(Math.abs(loss - expected.loss) / expected.loss).toBeLessThan(1e-5);
      const first = [...adapter.matrices.values()][0];
      const spec = { rank: first?.rank ?? 0, alpha: 1, rankPattern: {}, alphaPattern: {}, rslora: false };
      const reference = readFactors(await readAsset(`${folder}/golden-lora/golden.safetensors`), spec);
      expect([...gradients.keys()].sort()).toEqual([...reference.keys()].sort());
      let errors = 0;
      let sizes = 0;
      for (const [module, { a, b }] of reference) {
        for (const [ours, theirs] of [
          [gradients.get(module)?.a ?? [], a],
          [gradients.get(module)?.b ?? [], b],
        ] as const) {
          const error = norm(difference(ours, theirs));
          expect(error / norm(theirs), module).toBeLessThan(1e-3);
          errors += error ** 2;
          sizes += norm(theirs) ** 2;
        }
      }
      expect(Math.sqrt(errors / sizes)).toBeLessThan(2e-4);
    });

    it('gives the golden losses of ten AdamW steps', async () => {
      const { adapter, examples, expected } = await load();
      const { lr, betas, eps, weight_decay } = expected.adamw;
      const sequence = Math.max(...examples.map(({ inputIds }) => inputIds.length));
      const graph = await StepGraph.create(
        model,
        [...adapter.matrices.values()],
        { batch: examples.length, sequence },
        { training: true, optimiser: { name: 'adamw', beta1: betas[0], beta2: betas[1], eps } },
      );
      graph.loadAdapter(adapter);
      const batch = makeBatch(oneExamplePerRow(examples), examples.length, sequence);
      expect(batch.targetTokens).toBe(expected.targets);
      const losses: number[] = [];
      for (let step = 1; step <= 11; step += 1) {
        const hyper = {
          learningRate: lr,
          weightDecay: weight_decay,
          step,
          maxGradNorm: 0,
        };
        losses.push((await graph.run([batch], hyper)).loss);
      }
      graph.destroy();
      for (const [i, loss] of expected.adamw_losses.entries())
        expect(Math.abs((losses[i] ?? 0) - loss) / loss, `step ${i}`).toBeLessThan(1e-3);
    });
  });
});
