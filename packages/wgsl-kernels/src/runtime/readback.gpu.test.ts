import { beforeAll, describe, expect, it } from 'vitest';
import { openTestGpu } from '../testing/index.ts';
import { type Arena, ArenaPlan } from './arena.ts';
import type { Gpu } from './device.ts';
import { ReadbackRing } from './readback.ts';
import type { Tensor } from './tensor.ts';

describe('readback ring', () => {
  let gpu: Gpu;
  let arena: Arena;
  let x: Tensor;
  let long: Tensor;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    const plan = new ArenaPlan();
    const refs = [plan.tensor('x', [3]), plan.tensor('long', [100])] as const;
    arena = await plan.allocate(gpu);
    [x, long] = [arena.get(refs[0]), arena.get(refs[1])];
    return () => gpu.destroy();
  });

  it('gives each push what stood there then, and creates nothing', async () => {
    const ring = new ReadbackRing(gpu, 256, 2);
    const before = gpu.counters.buffersCreated;
    const readings: Promise<Float32Array>[] = [];
    for (let i = 0; i < 7; i += 1) {
      await ring.whenFree();
      arena.write(x, Float32Array.of(i, 2 * i, 3 * i));
      readings.push(ring.push(x));
    }
    const values = await Promise.all(readings);
    expect(values.map((value) => [...value])).toEqual([0, 1, 2, 3, 4, 5, 6].map((i) => [i, 2 * i, 3 * i]));
    expect(gpu.counters.buffersCreated).toBe(before);
    ring.destroy();
  });

  it('refuses a tensor too large for it, and a push without a free slot', async () => {
    const ring = new ReadbackRing(gpu, 12, 1);
    expect(() => ring.push(long)).toThrow("long is larger than the ring's 12 bytes.");
    const reading = ring.push(x);
    expect(() => ring.push(x)).toThrow(expect.objectContaining({ code: 'validation' }));
    await reading;
    await ring.push(x);
    ring.destroy();
  });

  it('rejects when the device is lost on the way', async () => {
    const doomed = await openTestGpu();
    const plan = new ArenaPlan();
    const ref = plan.tensor('x', [3]);
    const own = await plan.allocate(doomed);
    const ring = new ReadbackRing(doomed, 12, 2);
    doomed.device.destroy();
    await doomed.device.lost;
    await expect(ring.push(own.get(ref))).rejects.toMatchObject({ name: 'GpuError', code: 'device-lost' });
  });
});
