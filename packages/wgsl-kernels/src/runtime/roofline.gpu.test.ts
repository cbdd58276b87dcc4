import { afterAll, beforeAll, expect, it } from 'vitest';
import { openTestGpu } from '../testing/index.ts';
import type { Gpu } from './device.ts';
import { measurePeaks } from './roofline.ts';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openTestGpu({ limits: 'default' });
});
afterAll(() => gpu.destroy());

it('measures peaks that a device can have, and leaves nothing behind', async () => {
  const { gflops, gigabytes } = await measurePeaks(gpu);
  // From the slowest software adapter to ten of the fastest GPUs.
  expect(gflops).toBeGreaterThan(0.1);
  expect(gflops).toBeLessThan(1e6);
  expect(gigabytes).toBeGreaterThan(0.01);
  expect(gigabytes).toBeLessThan(1e5);
  expect(gpu.counters.bufferBytes).toBe(0);
});
