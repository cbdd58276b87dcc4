// Where a plan's time goes: every call alone in a pass with timestamps around it.
import { mapForReading } from './arena.ts';
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import type { Plan } from './plan.ts';

export interface KernelTime {
  readonly name: string;
  readonly calls: number;
  readonly milliseconds: number;
  /** 10⁹ floating-point operations a second. */
  readonly gflops: number;
  /** 10⁹ bytes a second, counting what must move at least. */
  readonly gigabytes: number;
}

/** Timestamps a query set may hold. */
const MAX_QUERIES = 4096;

/** GPU time by kernel name, longest first. Throws GpuError 'validation' where the device has no timestamp queries. */
export async function profilePlan(gpu: Gpu, plan: Plan): Promise<KernelTime[]> {
  if (!gpu.features.has('timestamp-query')) {
    throw new GpuError('validation', 'This device has no timestamp queries, so single kernels cannot be timed.');
  }
  const totals = new Map<string, { calls: number; nanoseconds: number; flops: number; bytes: number }>();
  for (let first = 0; first < plan.calls.length; first += MAX_QUERIES / 2) {
    const count = Math.min(MAX_QUERIES / 2, plan.calls.length - first);
    const times = await timeCalls(gpu, plan, first, count);
    for (let i = 0; i < count; i += 1) {
      const call = plan.calls[first + i];
      if (!call) continue;
      const total = totals.get(call.name) ?? { calls: 0, nanoseconds: 0, flops: 0, bytes: 0 };
      total.calls += 1;
      total.nanoseconds += Number((times[2 * i + 1] ?? 0n) - (times[2 * i] ?? 0n));
      total.flops += call.flops;
      total.bytes += call.bytes;
      totals.set(call.name, total);
    }
  }
  return [...totals]
    .map(([name, { calls, nanoseconds, flops, bytes }]) => ({
      name,
      calls,
      milliseconds: nanoseconds / 1e6,
      gflops: nanoseconds > 0 ? flops / nanoseconds : 0,
      gigabytes: nanoseconds > 0 ? bytes / nanoseconds : 0,
    }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}

async function timeCalls(gpu: Gpu, plan: Plan, first: number, count: number): Promise<BigUint64Array> {
  const bytes = 16 * count;
  const querySet = gpu.device.createQuerySet({ type: 'timestamp', count: 2 * count });
  const resolved = gpu.createBuffer('timestamps', bytes, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
  const staging = gpu.createBuffer('timestamps read', bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  try {
    const encoder = gpu.device.createCommandEncoder();
    for (let i = 0; i < count; i += 1) {
      plan.encodeAlone(encoder, first + i, {
        querySet,
        beginningOfPassWriteIndex: 2 * i,
        endOfPassWriteIndex: 2 * i + 1,
      });
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
