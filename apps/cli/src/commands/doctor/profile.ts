// `weft doctor --profile`: a real training step, kernel by kernel, beside what the device reaches at best.
import {
  ADAMW,
  adaptedMatrices,
  type GpuModel,
  plainSpec,
  profileStep,
  type StepProfile,
  type StepShape,
} from '@weft/trainer';
import type { MeasuredPeaks } from '@weft/wgsl-kernels';
import { type Io, table } from '../../command.ts';
import { fittingGraph } from '../train/session.ts';
import { type PlanOptions, shapeOf, wayOf } from './plan.ts';

/** Rank of a profile unless one is asked for. */
const RANK = 8;

export interface Profile extends StepProfile {
  readonly shape: StepShape;
  readonly rank: number;
}

/** Profiles a step of the first rank asked for. Throws CommandError 'no-room', GpuError 'device-lost'. */
export async function profileModel(
  model: GpuModel,
  options: PlanOptions,
  peaks: MeasuredPeaks,
  io: Io,
): Promise<Profile> {
  const [rank = RANK] = options.rank ?? [];
  const shape = shapeOf(model.config, options);
  const spec = plainSpec(rank);
  const request = { ...wayOf(options, shape), trainable: 'both', optimiser: ADAMW, dropout: 0, sides: [] } as const;
  const { graph } = await fittingGraph(model, adaptedMatrices(model.config, spec), shape, request, io);
  io.status('profiling a training step');
  try {
    return { shape, rank, ...(await profileStep(model, graph, spec, peaks)) };
  } finally {
    graph.destroy();
  }
}

const SHARE_OF = { flops: 'of FMA', bytes: 'of copy', exps: 'of exp' } as const;

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export function describeProfile({ shape, rank, step, flops, kernels }: Profile): string[] {
  const heading = ['kernel', 'dispatches', 'ms', 'of the step', 'GFLOP/s', 'GB/s', 'share of peak', ''];
  const rows = kernels.kernels.map(({ name, dispatches, milliseconds, gflops, gigabytes, share }) => [
    name,
    dispatches,
    milliseconds.toFixed(2),
    percent(milliseconds / kernels.milliseconds),
    gflops.toFixed(2),
    gigabytes.toFixed(2),
    share ? percent(share.value) : '',
    share ? SHARE_OF[share.of] : '',
  ]);
  const how =
    kernels.method === 'timestamps'
      ? 'Each call was timed in its place, by timestamps.'
      : 'A call of each kind was timed alone by repeating it, since this device’s timestamps are missing or coarse.';
  return [
    `A training step of ${shape.batch} rows of ${shape.sequence} tokens at rank ${rank}:`,
    '',
    table([heading, ...rows]),
    '',
    `${how} All kernels together: ${kernels.milliseconds.toFixed(1)} ms.`,
    `The step: ${step.milliseconds.toFixed(1)} ms, ${step.tokensPerSecond.toFixed(0)} tokens/s, LoRA-MFU ${percent(step.mfu)} (${(flops.total / 1e9).toFixed(2)} GFLOP), ${step.dispatches} dispatches in ${step.submits} submits, ${step.encodeMilliseconds.toFixed(1)} ms of encoding and submitting.`,
  ];
}
