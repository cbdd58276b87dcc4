// Where the time of a training step goes: a real step on rows of random tokens, timed whole, then kernel by kernel.
import { type MeasuredPeaks, type PlanProfile, type StepSummary, stepSummary } from '@weft/wgsl-kernels';
import { makeBatch } from '../data/batches.ts';
import type { AdapterSpec } from '../lora/adapter.ts';
import { initialAdapter } from '../lora/adapter.ts';
import { seededRandom } from '../random.ts';
import { type ModelFlops, modelFlops } from './flops.ts';
import type { GpuModel } from './gpu-model.ts';
import type { StepGraph } from './step.ts';

export interface StepProfile {
  /** Of the fastest of a few steps that ran one after another. */
  readonly step: StepSummary;
  readonly flops: ModelFlops;
  /** Every kernel of a step, timed by itself. */
  readonly kernels: PlanProfile;
}

/** Steps timed whole, after those a graph measures for itself. */
const STEPS = 3;

/** Runs a few steps of `spec` on its graph, which is of no other use afterwards. Throws as {@link StepGraph.run} does. */
export async function profileStep(
  model: GpuModel,
  graph: StepGraph,
  spec: AdapterSpec,
  peaks: MeasuredPeaks,
): Promise<StepProfile> {
  const { shape, microBatch } = graph.layout;
  const { gpu, config } = model;
  const random = seededRandom('profile');
  const row = () => {
    const inputIds = Array.from({ length: shape.sequence }, () => random.below(config.vocabSize));
    return [{ inputIds, labels: inputIds, targets: shape.sequence - 1 }];
  };
  const batches = Array.from({ length: shape.batch / microBatch }, () =>
    makeBatch(Array.from({ length: microBatch }, row), microBatch, shape.sequence),
  );
  graph.loadAdapter(initialAdapter(config, spec, 'profile'));
  const hyper = { learningRate: 1e-4, weightDecay: 0, maxGradNorm: 1 };
  let step = 0;
  const once = async () => {
    step += 1;
    const before = { ...gpu.counters, encode: graph.encodeMilliseconds };
    const began = performance.now();
    await graph.run(batches, { ...hyper, step, dropoutSeed: step });
    return {
      milliseconds: performance.now() - began,
      dispatches: gpu.counters.dispatches - before.dispatches,
      encodeMilliseconds: graph.encodeMilliseconds - before.encode,
    };
  };
  while (!graph.isMeasured) await once();
  let best = await once();
  for (let i = 1; i < STEPS; i += 1) {
    // As training does.
    graph.splitFor(best.milliseconds);
    const next = await once();
    if (next.milliseconds < best.milliseconds) best = next;
  }
  graph.splitFor(best.milliseconds);
  const flops = modelFlops(config, graph.matrices, shape);
  const tokens = shape.batch * shape.sequence;
  return {
    step: stepSummary({ ...best, submits: graph.submits, tokens, modelFlops: flops.total }, peaks),
    flops,
    kernels: await graph.profile(peaks),
  };
}
