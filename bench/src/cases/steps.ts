// Whole training steps, ours beside the peers', on the same weights, factors and tokens; every step's loss is compared. The
// first step of a device that has compiled nothing yet, and decoding, are here too.
import { Decoder, type Gpu, GpuModel } from '@weft/trainer';
import { hookEncoding } from '../gpu-time.ts';
import type { Contender } from '../measure.ts';
import type { Library } from '../peers/peer.ts';
import { openWeft } from '../peers/weft.ts';
import {
  baseModel,
  modelFlops,
  parametersOf,
  type StepData,
  stepData,
  tokensOf,
  WORKLOADS,
  type WorkloadName,
} from '../workload.ts';
import { type Context, kernelEffort, measure, reasonToLeaveOut, stepEffort } from './context.ts';

/** Losses of a library's steps, in order. */
type Losses = Map<string, number[]>;

function contender(library: Library, data: StepData, losses: Losses, leftOut?: string): Contender {
  return {
    name: library.name,
    leftOut,
    async prepare() {
      const runner = await library.step(data);
      const own: number[] = [];
      losses.set(library.name, own);
      return {
        async run(times: number) {
          for (let i = 0; i < times; i += 1) own.push(await runner.step());
        },
        destroy: () => runner.destroy(),
      };
    },
  };
}

/** Greatest difference of any library's losses from ours, and the steps all that ran have in common. */
export function lossGap(losses: Losses, ours: string): { lossGap: number; lossSteps: number } | null {
  const own = losses.get(ours) ?? [];
  const others = [...losses].filter(([name, values]) => name !== ours && values.length > 0);
  if (own.length === 0 || others.length === 0) return null;
  let gap = 0;
  let steps = own.length;
  for (const [, values] of others) {
    steps = Math.min(steps, values.length);
    for (const [i, value] of values.entries()) {
      const mine = own[i];
      // A NaN is no small difference.
      if (mine !== undefined)
        gap = Math.max(gap, Number.isNaN(value - mine) ? Number.POSITIVE_INFINITY : Math.abs(value - mine));
    }
  }
  return { lossGap: gap, lossSteps: steps };
}

/** Submits, encoding time and wall time of one of our steps, once it has settled. */
async function inspect(gpu: Gpu, ours: Library, data: StepData): Promise<Record<string, number>> {
  const runner = await ours.step(data);
  const hooked = hookEncoding(gpu.device);
  try {
    for (let i = 0; i < 3; i += 1) await runner.step();
    hooked.reset();
    const before = gpu.counters.submits;
    const began = performance.now();
    await runner.step();
    return {
      submits: gpu.counters.submits - before,
      encodeMs: hooked.milliseconds(),
      inspectedMs: performance.now() - began,
    };
  } finally {
    hooked.undo();
    runner.destroy();
  }
}

export async function stepCase(context: Context, name: WorkloadName): Promise<void> {
  const id = `step-${name}`;
  if (!context.wants(id)) return;
  const workload = WORKLOADS[name];
  const { gpu, ours, peers, options } = context;
  const effort = stepEffort(options);
  const data = stepData(workload);
  const flops = modelFlops(workload);
  const losses: Losses = new Map();
  let inspected: Record<string, number> = {};
  const contenders = [
    contender(ours, data, losses),
    ...peers.map((peer) =>
      contender(peer.library, data, losses, reasonToLeaveOut(context, peer, flops, effort.budgetMs)),
    ),
  ];
  inspected = await inspect(gpu, ours, data);
  await measure(context, { id, group: 'step', what: workload.name, flops }, contenders, effort, () => ({
    ...inspected,
    ...lossGap(losses, ours.name),
    tokens: tokensOf(workload),
    parameters: parametersOf(workload),
  }));
}

/** From a model that is loaded to its first step's loss, on a device of its own that has compiled nothing. */
export async function firstStepCase(
  context: Pick<Context, 'wants' | 'progress' | 'add'>,
  entry: GPU | undefined,
  name: WorkloadName,
): Promise<void> {
  const id = `first-step-${name}`;
  if (!context.wants(id)) return;
  const workload = WORKLOADS[name];
  const data = stepData(workload);
  const ours = await openWeft(entry);
  try {
    const loaded = await ours.load(data);
    const began = performance.now();
    const runner = await ours.stepOf(loaded, data);
    const made = performance.now() - began;
    await runner.step();
    const milliseconds = performance.now() - began;
    runner.destroy();
    context.progress(`${id}: ${milliseconds.toFixed(0)} ms, of which ${made.toFixed(0)} ms before the step`);
    context.add({
      id,
      group: 'first-step',
      what: `first step of ${workload.name}, compilation included`,
      timings: [
        {
          name: ours.name,
          median: milliseconds,
          low: milliseconds,
          high: milliseconds,
          samples: 1,
          firstMs: milliseconds,
        },
      ],
      flops: modelFlops(workload),
      bytes: 0,
      exps: 0,
      yardsticks: {},
      facts: { preparedMs: made },
    });
  } finally {
    await ours.close();
  }
}

const PROMPT = 64;

/** One token after a prompt, its logits read back, of the whole 15 M model. */
export async function decodeCase(context: Context): Promise<void> {
  const id = 'decode-s15-32k';
  if (!context.wants(id)) return;
  const { gpu, ours, options } = context;
  const data = stepData(WORKLOADS['s15-32k']);
  const { adapter, ids } = data;
  const contender: Contender = {
    name: ours.name,
    async prepare() {
      const model = await GpuModel.upload(gpu, baseModel(data));
      const decoder = await Decoder.create(model, 2 * PROMPT, adapter);
      await decoder.extend([...ids.subarray(0, PROMPT)]);
      return {
        async run(times: number) {
          for (let i = 0; i < times; i += 1) {
            decoder.rewind(PROMPT);
            await decoder.extend([ids[PROMPT + (i % PROMPT)] ?? 0]);
          }
        },
        destroy() {
          decoder.destroy();
          model.destroy();
        },
      };
    },
  };
  const what = `a token after ${PROMPT}, S15, vocabulary 32,000, with the adapter`;
  await measure(context, { id, group: 'decode', what }, [contender], kernelEffort(options));
}
