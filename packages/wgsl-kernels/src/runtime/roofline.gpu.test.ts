import { afterAll, beforeAll, expect, it } from 'vitest';
import { openTestGpu } from '../testing/index.ts';
import type { Gpu } from './device.ts';
import { measurePeaks, openPeakProbes } from './roofline.ts';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openTestGpu({ limits: 'default' });
});
afterAll(() => gpu.destroy());

it('measures peaks that a device can have, and leaves nothing behind', async () => {
  const peaks = await measurePeaks(gpu);
  const { gflops, f16Gflops, gigabytes, loadGigabytes, gigaexps, sweep } = peaks;
  // From the slowest software adapter to ten of the fastest GPUs.
  expect(gflops).toBeGreaterThan(0.1);
  expect(gflops).toBeLessThan(1e6);
  expect(gigabytes).toBeGreaterThan(0.01);
  expect(gigabytes).toBeLessThan(1e5);
  // An exponential takes several operations on any device.
  expect(gigaexps).toBeGreaterThan(1e-3);
  expect(gigaexps).toBeLessThan(gflops);
  expect(f16Gflops !== null).toBe(gpu.features.has('shader-f16'));
  const best = (measure: string) =>
    Math.max(...sweep.filter((each) => each.measure === measure).map(({ rate }) => rate));
  expect([best('f32'), best('copy'), best('load'), best('exp')]).toEqual([gflops, gigabytes, loadGigabytes, gigaexps]);
  // Each load is added to a sum, which takes an operation of the many a device does at least.
  expect(loadGigabytes).toBeGreaterThan(0.01);
  expect(loadGigabytes).toBeLessThan(4 * gflops);
  expect(sweep.every(({ rate }) => rate > 0)).toBe(true);
  expect(new Set(sweep.map(({ measure, variant }) => `${measure} ${variant}`)).size).toBe(sweep.length);
  // The fastest of each runs again by itself, no faster than the best of many runs by much.
  const probes = await openPeakProbes(gpu, peaks);
  for (const [probe, peak] of [
    [probes.f32, gflops],
    [probes.copy, gigabytes],
    [probes.exp, gigaexps],
  ] as const) {
    await probe.run();
    const began = performance.now();
    await probe.run();
    const rate = probe.amount / (performance.now() - began) / 1e6;
    expect(rate).toBeGreaterThan(peak / 50);
    expect(rate).toBeLessThan(3 * peak);
  }
  probes.destroy();
  expect(gpu.counters.bufferBytes).toBe(0);
});

it('measures without optional features', async () => {
  const plain = await openTestGpu({ features: 'none' });
  expect(plain.subgroups).toBe(null);
  expect([...plain.features].filter((name) => name !== 'core-features-and-limits')).toEqual([]);
  expect((await measurePeaks(plain)).f16Gflops).toBe(null);
  plain.destroy();
});
