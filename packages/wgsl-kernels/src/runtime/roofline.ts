// What this device reaches at best, measured: the yardstick for a kernel's share of it. Wall-clock time, so that devices
// without timestamp queries are measured too.
import { ArenaPlan } from './arena.ts';
import type { Gpu } from './device.ts';
import { foldWorkgroups, type KernelCall, type Plan, PlanRecorder } from './plan.ts';
import code from './roofline.wgsl?raw';
import { layOutParams, type ShaderSource } from './shader.ts';
import type { Tensor } from './tensor.ts';

export const rooflineShader: ShaderSource = { name: 'roofline', code };

export interface MeasuredPeaks {
  /** 10⁹ float32 operations a second; a multiply-add is two. */
  readonly gflops: number;
  /** 10⁹ bytes a second, reads and writes together. */
  readonly gigabytes: number;
}

/** Enough invocations to fill a large GPU. */
const INVOCATIONS = 2 ** 18;
const OPERATIONS_PER_LOOP = 8 * 4 * 2;
/** Bytes of each side of the copy: more than the caches of most devices. */
const COPY_BYTES = 32 * 1024 * 1024;
/** A measurement is as long as this before it is believed, and well below what a watchdog or a user would notice. */
const LONG_ENOUGH_MS = 20;
const MOST_WORK = 2 ** 16;

function calls(x: Tensor, out: Tensor, work: Tensor): { multiplyAdd: KernelCall; copy: KernelCall } {
  const describe = (entryPoint: string, count: number, bindings: Tensor[], bindingSlots: number[]): KernelCall => ({
    name: `roofline-${entryPoint}`,
    shader: rooflineShader,
    entryPoint,
    bindings,
    bindingSlots,
    uniforms: layOutParams(rooflineShader, { count }),
    workgroups: foldWorkgroups(count / 64),
    flops: 0,
    bytes: 0,
  });
  return {
    multiplyAdd: describe('multiply_add', INVOCATIONS, [out, work], [2, 3]),
    copy: describe('copy', COPY_BYTES / 16, [x, out], [1, 2]),
  };
}

/** Throws GpuError 'out-of-memory' where 64 MiB cannot be had, or 'device-lost'. */
export async function measurePeaks(gpu: Gpu): Promise<MeasuredPeaks> {
  const memory = new ArenaPlan();
  const refs = {
    x: memory.tensor('copy from', [COPY_BYTES / 4]),
    out: memory.tensor('copy to', [COPY_BYTES / 4]),
    work: memory.tensor('loops', [1], 'u32'),
  };
  const arena = await memory.allocate(gpu);
  const plans: Plan[] = [];
  try {
    const work = arena.get(refs.work);
    const { multiplyAdd, copy } = calls(arena.get(refs.x), arena.get(refs.out), work);
    const record = async (call: KernelCall): Promise<Plan> => {
      const recorder = new PlanRecorder(gpu);
      recorder.call(call);
      const plan = await recorder.finish();
      plans.push(plan);
      return plan;
    };
    const adds = await record(multiplyAdd);
    const copies = await record(copy);
    const addsPerMs = await bestRate(gpu, (loops) => {
      arena.write(work, Uint32Array.of(loops));
      adds.run();
    });
    const copiesPerMs = await bestRate(gpu, (times) => {
      for (let i = 0; i < times; i += 1) copies.run();
    });
    return {
      gflops: (addsPerMs * INVOCATIONS * OPERATIONS_PER_LOOP) / 1e6,
      gigabytes: (copiesPerMs * 2 * COPY_BYTES) / 1e6,
    };
  } finally {
    for (const plan of plans) plan.destroy();
    arena.destroy();
  }
}

/** Units of work a millisecond: the best of several runs, with as many units as take long enough to be timed. */
async function bestRate(gpu: Gpu, submit: (units: number) => void): Promise<number> {
  const time = async (units: number): Promise<number> => {
    const began = performance.now();
    submit(units);
    await gpu.device.queue.onSubmittedWorkDone();
    return performance.now() - began;
  };
  // The shorter of two: whatever else the machine does can only make a run longer.
  const shorter = async (units: number): Promise<number> => Math.min(await time(units), await time(units));
  await time(1);
  let units = 1;
  let milliseconds = await shorter(units);
  while (milliseconds < LONG_ENOUGH_MS && units < MOST_WORK) {
    units *= 2;
    milliseconds = await shorter(units);
  }
  return units / Math.min(milliseconds, await shorter(units), await shorter(units));
}
