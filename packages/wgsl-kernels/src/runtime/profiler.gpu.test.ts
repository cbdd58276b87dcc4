import { beforeAll, describe, expect, it } from 'vitest';
import { add } from '../kernels/add/add.ts';
import { swigluForward } from '../kernels/swiglu/swiglu.ts';
import { openTestGpu } from '../testing/index.ts';
import { type Arena, ArenaPlan } from './arena.ts';
import type { Gpu } from './device.ts';
import { type Plan, PlanRecorder } from './plan.ts';
import { profilePlan, profilePlans, stepSummary } from './profiler.ts';

const peaks = { gflops: 100, f16Gflops: null, gigabytes: 10, loadGigabytes: 10, gigaexps: 1, sweep: [] };

describe('profiler', () => {
  let gpu: Gpu;
  let arena: Arena;
  let plan: Plan;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    const memory = new ArenaPlan();
    const refs = ['x', 'y', 'out'].map((name) => memory.tensor(name, [2 ** 18]));
    arena = await memory.allocate(gpu);
    const [x, y, out] = refs.map((ref) => arena.get(ref));
    if (!x || !y || !out) throw new Error('Three tensors were planned.');
    const recorder = new PlanRecorder(gpu);
    recorder.call(...add({ x, y, out }), ...add({ x: out, y, out: x }));
    recorder.call(...swigluForward({ gate: x, up: y, out }).map((call) => ({ ...call, exps: 2 ** 18 })));
    plan = await recorder.finish();
    return () => gpu.destroy();
  });

  it('times every kernel, in its place or by repetition, and says how', async () => {
    const before = gpu.counters.bufferBytes;
    const methods = gpu.features.has('timestamp-query')
      ? (['timestamps', 'repetition', undefined] as const)
      : (['repetition', undefined] as const);
    for (const method of methods) {
      const profile = await profilePlan(gpu, plan, { peaks, ...(method ? { method } : {}) });
      if (method) expect(profile.method).toBe(method);
      const { kernels } = profile;
      expect(new Set(kernels.map(({ name }) => name))).toEqual(new Set(['add', 'swiglu-forward']));
      for (const { name, calls, dispatches, milliseconds, gflops, gigabytes, gigaexps, share } of kernels) {
        expect([calls, dispatches]).toEqual(name === 'add' ? [2, 2] : [1, 1]);
        // Browsers round timestamps to 0.1 ms, so that a short kernel may seem to take none.
        if (profile.method === 'timestamps') {
          expect(milliseconds).toBeGreaterThanOrEqual(0);
          if (milliseconds === 0) continue;
        }
        expect(milliseconds).toBeGreaterThan(0);
        expect(milliseconds).toBeLessThan(2_000);
        expect(gigabytes).toBeCloseTo((calls * 3 * 2 ** 20) / (1e6 * milliseconds), 6);
        const shares = { flops: gflops / 100, bytes: gigabytes / 10, exps: gigaexps };
        expect(share?.value).toBe(Math.max(...Object.values(shares)));
        expect(share && shares[share.of]).toBe(share?.value);
        expect(gigaexps > 0).toBe(name === 'swiglu-forward');
      }
      expect(profile.milliseconds).toBeCloseTo(kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0));
    }
    expect(gpu.counters.bufferBytes).toBe(before);
  });

  it('adds plans up as often as they run, without peaks too', async () => {
    const { kernels } = await profilePlans(
      gpu,
      [
        { plan, times: 3 },
        { plan, times: 1 },
      ],
      { method: 'repetition' },
    );
    expect(kernels.find(({ name }) => name === 'add')).toMatchObject({ calls: 8, share: null });
  });

  it('refuses timestamps where there are none', async () => {
    const plain = await openTestGpu({ features: 'none' });
    const empty = await new PlanRecorder(plain).finish();
    await expect(profilePlan(plain, empty, { method: 'timestamps' })).rejects.toMatchObject({ code: 'validation' });
    expect(await profilePlan(plain, empty)).toEqual({ method: 'repetition', kernels: [], milliseconds: 0 });
    plain.destroy();
  });
});

it('sums a step up', () => {
  const step = { milliseconds: 500, submits: 6, dispatches: 100, encodeMilliseconds: 2 };
  // 25 GFLOP in half a second on a device that does 100 GFLOP/s.
  expect(stepSummary({ ...step, tokens: 256, modelFlops: 25e9 }, peaks)).toEqual({
    ...step,
    tokensPerSecond: 512,
    mfu: 0.5,
  });
});
