import { beforeAll, describe, expect, it } from 'vitest';
import { at, norm as normOf, adamw as reference } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { PLACEMENTS } from '../shared/vector.ts';
import { ADAMW_HYPER_SIZE, type AdamwHyper, adamw, adamwHyper } from './adamw.ts';

const settings: AdamwHyper = {
  learningRate: 3e-3,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0.1,
  step: 1,
  maxGradNorm: 0,
};

interface State {
  readonly param: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
}

describe.each(PLACEMENTS)('adamw, vectors %s', (placement) => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  const step = ({ param, m, v }: State, grad: Float32Array, hyper: AdamwHyper, norm: readonly [number, number]) => {
    const shape = [param.length];
    return runKernel(
      gpu,
      {
        param: { shape, data: param, written: true },
        grad: { shape, data: grad },
        m: { shape, data: m, written: true },
        v: { shape, data: v, written: true },
        hyper: { shape: [ADAMW_HYPER_SIZE], data: adamwHyper(hyper) },
        norm: { shape: [2], data: Float32Array.from(norm) },
      },
      (tensors) => adamw(tensors, { placement }),
    );
  };

  /** Holds one step to the reference from the same float32 state, and gives the state after it. */
  async function check(state: State, grad: Float32Array, hyper: AdamwHyper): Promise<State> {
    const next = await step(state, grad, hyper, [normOf(grad), 0]);
    const expected = reference(state, grad, hyper);
    const clip = hyper.maxGradNorm > 0 ? Math.min(1, hyper.maxGradNorm / normOf(grad)) : 1;
    // Each term of a moment: its factor rounded once, its products (a square has two, and the clip 4 with its division)
    // and the sum.
    const mError = (i: number): number =>
      EPSILON * (hyper.beta1 * Math.abs(at(state.m, i)) + 6 * (1 - hyper.beta1) * clip * Math.abs(at(grad, i)));
    const vError = (i: number): number =>
      EPSILON * (hyper.beta2 * at(state.v, i) + 12 * (1 - hyper.beta2) * (clip * at(grad, i)) ** 2);
    expectWithin(`m, step ${hyper.step}`, next.m, expected.m, mError);
    expectWithin(`v, step ${hyper.step}`, next.v, expected.v, vError);
    const { learningRate, beta1, beta2, eps } = hyper;
    expectWithin(`param, step ${hyper.step}`, next.param, expected.param, (i) => {
      const second = at(expected.v, i) / (1 - beta2 ** hyper.step);
      const divisor = Math.sqrt(second) + eps;
      const factor = learningRate / (1 - beta1 ** hyper.step) / divisor;
      const update = factor * Math.abs(at(expected.m, i));
      // The root halves the relative error of v. Roundings of the update: lr, two corrections, three products, root (3),
      // sum with eps, division (2.5). The decay rounds its factor and product, the difference once.
      const relative = at(expected.v, i) > 0 ? vError(i) / at(expected.v, i) / 2 : 0;
      const own = EPSILON * (1.5 * Math.abs(at(state.param, i)) + 10 * update);
      return factor * mError(i) + update * relative + own;
    });
    return next;
  }

  const fresh = (count: number): State => ({
    param: randomNumbers(count).floats(count),
    m: new Float32Array(count),
    v: new Float32Array(count),
  });

  it.each([[1], [63], [65], [1009], [1028]])('ten steps of %i parameters', async (count) => {
    const random = randomNumbers(count + 1);
    let state = fresh(count);
    for (let number = 1; number <= 10; number += 1) {
      state = await check(state, random.floats(count, 0.01), { ...settings, step: number });
    }
  });

  it('scales a gradient above the norm down, and leaves one below', async () => {
    const grad = randomNumbers(5).floats(100);
    await check(fresh(100), grad, { ...settings, maxGradNorm: 0.5 });
    await check(fresh(100), grad, { ...settings, maxGradNorm: 1000 });
    const loud = await step(fresh(100), grad, { ...settings, maxGradNorm: 0.5 }, [normOf(grad), 0]);
    const quiet = await step(fresh(100), grad, settings, [normOf(grad), 0]);
    const ratio = normOf(loud.m) / normOf(quiet.m);
    expect(Math.abs(ratio - 0.5 / normOf(grad))).toBeLessThan(1e-6);
  });

  it('decays without a gradient', async () => {
    const { param } = await step(fresh(10), new Float32Array(10), { ...settings, learningRate: 0.5 }, [0, 0]);
    expectWithin(
      'param',
      param,
      fresh(10).param.map((value) => value * 0.95),
      () => EPSILON,
    );
  });

  it('changes nothing when the gradient is not finite', async () => {
    const grad = new Float32Array(70).fill(Number.NaN);
    const before = fresh(70);
    const after = await step(before, grad, settings, [Number.NaN, 1]);
    expect(after.param).toEqual(before.param);
    expect(after.m).toEqual(before.m);
    expect(after.v).toEqual(before.v);
    expect(after.norm[1]).toBe(1);
  });

  it('refuses a gradient of another length', async () => {
    const inputs = {
      param: { shape: [4], data: new Float32Array(4), written: true },
      grad: { shape: [5], data: new Float32Array(5) },
      m: { shape: [4], data: new Float32Array(4), written: true },
      v: { shape: [4], data: new Float32Array(4), written: true },
      hyper: { shape: [ADAMW_HYPER_SIZE], data: adamwHyper(settings) },
      norm: { shape: [2], data: new Float32Array(2) },
    };
    await expect(runKernel(gpu, inputs, (tensors) => adamw(tensors, { placement }))).rejects.toMatchObject({
      code: 'shape',
    });
  });
});
