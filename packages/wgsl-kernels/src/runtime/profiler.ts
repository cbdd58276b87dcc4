// Where a plan's time goes, kernel by kernel, and how close each comes to what the device can do. With fine timestamps every
// call is timed in its place; without them (browsers round them to 0.1 ms) a call of each kind is repeated alone until
// a clock on the wall can tell. Either way the tensors hold nothing of use afterwards.
import { mapForReading } from './arena.ts';
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import type { Plan } from './plan.ts';
import type { MeasuredPeaks } from './roofline.ts';

export type ProfileMethod = 'timestamps' | 'repetition';

export interface KernelTime {
  readonly name: string;
  readonly calls: number;
  /** More than calls where long ones are cut into pieces. */
  readonly dispatches: number;
  readonly milliseconds: number;
  /** 10⁹ floating-point operations a second. */
  readonly gflops: number;
  /** 10⁹ bytes a second, counting what must move at least. */
  readonly gigabytes: number;
  /** 10⁹ exponentials a second, where the kernel states how many it takes. */
  readonly gigaexps: number;
  /** The largest of its rates as a share of the measured peak, and of which peak; null where peaks were not given. */
  readonly share: { readonly of: 'flops' | 'bytes' | 'exps'; readonly value: number } | null;
}

export interface PlanProfile {
  readonly method: ProfileMethod;
  /** Longest first. */
  readonly kernels: readonly KernelTime[];
  /** Of all kernels, in milliseconds. */
  readonly milliseconds: number;
}

export interface ProfileOptions {
  readonly peaks?: MeasuredPeaks;
  /** Timestamps unless the device has none or only coarse ones. */
  readonly method?: ProfileMethod;
}

/** Timestamps a query set may hold. */
const MAX_QUERIES = 4096;
/** Ticks longer than this, in nanoseconds, say too little of a kernel. */
const COARSE_NS = 10_000;
/** A call is repeated until that takes so long. */
const LONG_ENOUGH_MS = 8;
const MOST_REPEATS = 4096;

/**
 * GPU time by kernel name, longest first, of plans that run so many times each. Throws GpuError 'validation' when
 * timestamps are asked for on a device without them, or 'device-lost'.
 */
export async function profilePlans(
  gpu: Gpu,
  plans: readonly { readonly plan: Plan; readonly times: number }[],
  { peaks, method }: ProfileOptions = {},
): Promise<PlanProfile> {
  if (method === 'timestamps' && !gpu.features.has('timestamp-query'))
    throw new GpuError('validation', 'This device has no timestamp queries; measure by repetition.');
  const chosen = method ?? ((await hasFineTimestamps(gpu, plans[0]?.plan)) ? 'timestamps' : 'repetition');
  const measure = chosen === 'timestamps' ? timeByTimestamps : timeByRepetition;
  const totals = new Map<string, Total>();
  for (const { plan, times } of plans) {
    const milliseconds = await measure(gpu, plan);
    for (const [i, call] of plan.calls.entries()) {
      const total = totals.get(call.name) ?? { calls: 0, dispatches: 0, milliseconds: 0, flops: 0, bytes: 0, exps: 0 };
      total.calls += times;
      total.dispatches += times * plan.dispatchesOf(i);
      total.milliseconds += times * (milliseconds[i] ?? 0);
      total.flops += times * call.flops;
      total.bytes += times * call.bytes;
      total.exps += times * (call.exps ?? 0);
      totals.set(call.name, total);
    }
  }
  const kernels = [...totals].map(([name, total]) => kernelTime(name, total, peaks));
  return {
    method: chosen,
    kernels: kernels.sort((a, b) => b.milliseconds - a.milliseconds),
    milliseconds: kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0),
  };
}

/** {@link profilePlans} of one plan. */
export const profilePlan = (gpu: Gpu, plan: Plan, options: ProfileOptions = {}): Promise<PlanProfile> =>
  profilePlans(gpu, [{ plan, times: 1 }], options);

interface Total {
  calls: number;
  dispatches: number;
  milliseconds: number;
  flops: number;
  bytes: number;
  exps: number;
}

function kernelTime(name: string, total: Total, peaks: MeasuredPeaks | undefined): KernelTime {
  const { calls, dispatches, milliseconds } = total;
  const rate = (amount: number) => (milliseconds > 0 ? amount / (1e6 * milliseconds) : 0);
  const [gflops, gigabytes, gigaexps] = [rate(total.flops), rate(total.bytes), rate(total.exps)];
  const shares = peaks && [
    { of: 'flops', value: gflops / peaks.gflops } as const,
    { of: 'bytes', value: gigabytes / peaks.gigabytes } as const,
    { of: 'exps', value: gigaexps / peaks.gigaexps } as const,
  ];
  const share = shares?.reduce((best, each) => (each.value > best.value ? each : best)) ?? null;
  return { name, calls, dispatches, milliseconds, gflops, gigabytes, gigaexps, share };
}

/** Timestamps that a plan's own calls show to be fine: their shortest difference is shorter than a coarse tick. */
async function hasFineTimestamps(gpu: Gpu, plan: Plan | undefined): Promise<boolean> {
  if (!gpu.features.has('timestamp-query') || !plan || plan.calls.length === 0) return false;
  const times = await readTimestamps(gpu, plan, 0, Math.min(plan.calls.length, 64));
  const sorted = [...times].sort((a, b) => Number(a - b));
  // A driver that leaves them at zero has none.
  if (sorted[0] === sorted.at(-1)) return false;
  return sorted.some((time, i) => {
    const step = Number(time - (sorted[i - 1] ?? time));
    return step > 0 && step < COARSE_NS;
  });
}

async function timeByTimestamps(gpu: Gpu, plan: Plan): Promise<number[]> {
  // Once before, because a driver may compile at the first run.
  plan.run();
  const milliseconds: number[] = [];
  for (let first = 0; first < plan.calls.length; first += MAX_QUERIES / 2) {
    const count = Math.min(MAX_QUERIES / 2, plan.calls.length - first);
    const times = await readTimestamps(gpu, plan, first, count);
    for (let i = 0; i < count; i += 1) milliseconds.push(Number((times[2 * i + 1] ?? 0n) - (times[2 * i] ?? 0n)) / 1e6);
  }
  return milliseconds;
}

/** Runs `count` calls, each alone between two timestamps, in nanoseconds. */
async function readTimestamps(gpu: Gpu, plan: Plan, first: number, count: number): Promise<BigUint64Array> {
  const bytes = 16 * count;
  const querySet = gpu.device.createQuerySet({ type: 'timestamp', count: 2 * count });
  const resolved = gpu.createBuffer('timestamps', bytes, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
  const staging = gpu.createBuffer('timestamps read', bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  try {
    const encoder = gpu.device.createCommandEncoder();
    for (let i = 0; i < count; i += 1) {
      const timestampWrites = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
      plan.encodeAlone(encoder, first + i, { timestampWrites });
    }
    encoder.resolveQuerySet(querySet, 0, 2 * count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
    gpu.submit([encoder.finish()]);
    await mapForReading(staging);
    return new BigUint64Array(staging.getMappedRange().slice(0));
  } finally {
    querySet.destroy();
    gpu.destroyBuffer(resolved);
    gpu.destroyBuffer(staging);
  }
}

/** A call of each kind, repeated alone; the others of its kind are taken to be as long. */
async function timeByRepetition(gpu: Gpu, plan: Plan): Promise<number[]> {
  const time = async (index: number | null, times: number): Promise<number> => {
    const encoder = gpu.device.createCommandEncoder();
    const began = performance.now();
    if (index !== null) plan.encodeAlone(encoder, index, { times });
    gpu.submit([encoder.finish()]);
    await gpu.device.queue.onSubmittedWorkDone();
    if (gpu.isLost()) throw new GpuError('device-lost', 'The GPU was lost while its kernels were timed.');
    return performance.now() - began;
  };
  const idle = Math.min(await time(null, 0), await time(null, 0), await time(null, 0));
  const byKind = new Map<number, number>();
  for (const [i, kind] of plan.kinds.entries()) {
    if (byKind.has(kind)) continue;
    await time(i, 1);
    let times = 1;
    let milliseconds = await time(i, times);
    while (milliseconds - idle < LONG_ENOUGH_MS && times < MOST_REPEATS) {
      const factor = (1.2 * LONG_ENOUGH_MS) / Math.max(milliseconds - idle, 0.1);
      times = Math.min(MOST_REPEATS, Math.ceil(times * Math.max(2, Math.min(16, factor))));
      milliseconds = await time(i, times);
    }
    byKind.set(kind, Math.max(0, Math.min(milliseconds, await time(i, times)) - idle) / times);
  }
  return plan.kinds.map((kind) => byKind.get(kind) ?? 0);
}

/** What a step took, and the share of the device's arithmetic that it put to use. */
export interface StepSummary {
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  /**
   * Model FLOPs utilisation: operations that the mathematics needs, nothing computed twice, over what the device's peak does
   * in that time (Chowdhery et al. 2022, PaLM, appendix B, with LoRA's operations).
   */
  readonly mfu: number;
  readonly submits: number;
  readonly dispatches: number;
  /** Of this thread, for encoding and submitting. */
  readonly encodeMilliseconds: number;
}

export function stepSummary(
  step: Omit<StepSummary, 'tokensPerSecond' | 'mfu'> & { readonly tokens: number; readonly modelFlops: number },
  peaks: Pick<MeasuredPeaks, 'gflops'>,
): StepSummary {
  const { tokens, modelFlops, ...rest } = step;
  return {
    ...rest,
    tokensPerSecond: (1000 * tokens) / step.milliseconds,
    mfu: modelFlops / (1e6 * peaks.gflops * step.milliseconds),
  };
}
