// Sizes and durations that take minutes on a software adapter: a model of SmolLM2-135M's shape, and a thousand steps.
import { type Checkpoint, modelTensors, parseModelConfig } from '@weft/formats';
import type { Gpu } from '@weft/wgsl-kernels';
import { openTestGpu, readAsset } from '@weft/wgsl-kernels/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { oneExamplePerRow } from './data/batches.ts';
import { adaptedMatrices, initialAdapter, plainSpec } from './lora/adapter.ts';
import { loadModel, MODEL_FILES } from './model/base-model.ts';
import { GpuModel } from './plan/gpu-model.ts';
import { planMemory } from './plan/memory.ts';
import { StepGraph } from './plan/step.ts';
import { seededRandom } from './random.ts';
import { train } from './train.ts';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openTestGpu();
});
afterAll(() => gpu.destroy());

const isNode = typeof process !== 'undefined' && typeof process.versions?.node === 'string';

const settings = {
  learningRate: 1e-3,
  schedule: 'constant',
  warmupSteps: 0,
  weightDecay: 0,
  maxGradNorm: 1,
  seed: 'seed',
} as const;

/** From the public configuration of SmolLM2-135M. */
const smollm2 = parseModelConfig(
  JSON.stringify({
    architectures: ['LlamaForCausalLM'],
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    vocab_size: 49_152,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
    tie_word_embeddings: true,
  }),
);

/** Weights made when they are read, so that no file is needed. */
const randomCheckpoint: Checkpoint = {
  config: smollm2,
  dtypeOf: () => 'F32',
  read(name, first, count) {
    const random = seededRandom('smollm2', name, String(first));
    const isNorm = modelTensors(smollm2).some((tensor) => tensor.name === name && tensor.shape.length === 1);
    const value = isNorm ? () => 1 : () => 0.08 * (random.uniform() - 0.5);
    return Promise.resolve(Float32Array.from({ length: count }, value));
  },
};

it('trains the shape of SmolLM2-135M in q8, rank 8, T 256, with recomputed activations', async () => {
  const model = { config: smollm2, checkpoint: randomCheckpoint, tokenizer: null };
  const matrices = adaptedMatrices(smollm2, plainSpec(8));
  const shape = { batch: 1, sequence: 256 };
  const planned = planMemory(smollm2, matrices, shape, { weights: 'q8', checkpoint: true });
  const before = gpu.counters.bufferBytes;
  const onGpu = await GpuModel.upload(gpu, model, { type: 'q8' });
  expect(onGpu.bytes).toBe(planned.weights);
  const graph = await StepGraph.create(onGpu, matrices, shape, { training: true, checkpoint: true });
  expect(gpu.counters.bufferBytes - before).toBe(planned.total);
  const inputIds = Array.from({ length: 256 }, (_, i) => (i * 4801 + 17) % 49_152);
  const rows = oneExamplePerRow([{ inputIds, labels: inputIds, targets: 255 }]);
  const start = initialAdapter(smollm2, plainSpec(8), 'seed');
  const { losses } = await train(graph, start, rows, { ...settings, steps: isNode ? 10 : 2 });
  expect(gpu.counters.bufferBytes - before).toBe(planned.total);
  // An untrained model knows nothing: the loss starts at about log V, and falls on the row it sees again and again.
  expect(losses[0]).toBeGreaterThan(Math.log(49_152) - 0.5);
  expect(losses[0]).toBeLessThan(Math.log(49_152) + 0.5);
  expect(losses.at(-1)).toBeLessThan(losses[0] ?? 0);
  graph.destroy();
  onGpu.destroy();
}, 1_800_000);

it('takes the planned bytes, and creates nothing, over a thousand steps', async () => {
  const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
  const model = await GpuModel.upload(gpu, await loadModel(new Map(await Promise.all(MODEL_FILES.map(read)))));
  const spec = plainSpec(2);
  const matrices = adaptedMatrices(model.config, spec);
  const shape = { batch: 2, sequence: 8 };
  const options = { microBatch: 1, checkpoint: true };
  const planned = planMemory(model.config, matrices, shape, options);
  const before = gpu.counters.bufferBytes - model.bytes;
  const graph = await StepGraph.create(model, matrices, shape, { training: true, ...options });
  const inputIds = [1, 403, 407, 261, 378, 285, 2];
  const rows = oneExamplePerRow([{ inputIds, labels: inputIds, targets: 6 }]);
  const start = initialAdapter(model.config, spec, 'seed');
  const steps = isNode ? 1000 : 200;
  let created: number[] | null = null;
  const { losses } = await train(
    graph,
    start,
    rows,
    { ...settings, steps },
    {
      onStep: ({ step }) => {
        const { buffersCreated, bindGroupsCreated, pipelinesCreated, bufferBytes } = gpu.counters;
        expect(bufferBytes - before).toBe(planned.total);
        const now = [buffersCreated, bindGroupsCreated, pipelinesCreated];
        if (step > 1) expect(now).toEqual(created ?? now);
        created = now;
      },
    },
  );
  expect(losses).toHaveLength(steps);
  expect(losses.at(-1)).toBeLessThan(losses[0] ?? 0);
  graph.destroy();
  model.destroy();
}, 1_800_000);
