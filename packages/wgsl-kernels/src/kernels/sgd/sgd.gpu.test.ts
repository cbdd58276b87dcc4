import { beforeAll, describe, expect, it } from 'vitest';
import { at, norm as normOf, sgd as reference } from '../../reference/index.ts';
import { ArenaPlan } from '../../runtime/arena.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { PLACEMENTS } from '../shared/vector.ts';
import { SGD_HYPER_SIZE, type SgdHyper, sgd, sgdHyper } from './sgd.ts';

const settings: SgdHyper = { learningRate: 0.3, momentum: 0.9, weightDecay: 0.1, maxGradNorm: 0 };

interface State {
  readonly param: Float32Array;
  readonly velocity: Float32Array;
}

describe.each(PLACEMENTS)('sgd, vectors %s', (placement) => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  /** Without momentum the velocity is bound to nothing, and so must keep its bytes. */
  const step = ({ param, velocity }: State, grad: Float32Array, hyper: SgdHyper, norm: readonly [number, number]) => {
    const shape = [param.length];
    return runKernel(
      gpu,
      {
        param: { shape, data: param, written: true },
        grad: { shape, data: grad },
        velocity: { shape, data: velocity, written: hyper.momentum > 0 },
        hyper: { shape: [SGD_HYPER_SIZE], data: sgdHyper(hyper) },
        norm: { shape: [2], data: Float32Array.from(norm) },
      },
      ({ velocity: bound, ...tensors }) =>
        sgd({ ...tensors, ...(hyper.momentum > 0 ? { velocity: bound } : {}) }, { placement }),
    );
  };

  /** Holds one step to the reference from the same float32 state, and gives the state after it. */
  async function check(state: State, grad: Float32Array, hyper: SgdHyper): Promise<State> {
    const next = await step(state, grad, hyper, [normOf(grad), 0]);
    const from = hyper.momentum > 0 ? state : { ...state, velocity: new Float32Array(grad.length) };
    const expected = reference(from, grad, hyper);
    const clip = hyper.maxGradNorm > 0 ? Math.min(1, hyper.maxGradNorm / normOf(grad)) : 1;
    // Half an ε a rounding. Of the gradient's term: the clip 2.5 (sum, division), its product, the two sums after it; of the
    // decay's: factor, product, two sums; of momentum's: factor, product, one sum.
    const vError = (i: number): number =>
      (EPSILON / 2) *
      (7 * clip * Math.abs(at(grad, i)) +
        4 * hyper.weightDecay * Math.abs(at(state.param, i)) +
        3 * hyper.momentum * Math.abs(at(from.velocity, i)));
    if (hyper.momentum > 0) expectWithin('velocity', next.velocity, expected.velocity, vError);
    // The update rounds its factor and product, the difference once.
    expectWithin(
      'param',
      next.param,
      expected.param,
      (i) =>
        hyper.learningRate * vError(i) +
        (EPSILON / 2) * (3 * hyper.learningRate * Math.abs(at(expected.velocity, i)) + Math.abs(at(state.param, i))),
    );
    return next;
  }

  const fresh = (count: number): State => ({
    param: randomNumbers(count).floats(count),
    velocity: new Float32Array(count),
  });

  it.each([
    [1, 0],
    [1, 0.9],
    [63, 0],
    [65, 0.9],
    [1009, 0.5],
    [1028, 0],
    [1028, 0.9],
  ])('five steps of %i parameters, momentum %f', async (count, momentum) => {
    const random = randomNumbers(count + 1);
    let state = fresh(count);
    for (let number = 1; number <= 5; number += 1) {
      state = await check(state, random.floats(count, 0.1), { ...settings, momentum });
    }
  });

  it.each([0, 0.9])('scales a gradient above the norm down, and leaves one below; momentum %f', async (momentum) => {
    const grad = randomNumbers(5).floats(100);
    const plain = { ...settings, momentum, weightDecay: 0, learningRate: 1 };
    await check(fresh(100), grad, { ...plain, maxGradNorm: 0.5 });
    await check(fresh(100), grad, { ...plain, maxGradNorm: 1000 });
    const still = { ...fresh(100), param: new Float32Array(100) };
    const { param } = await step(still, grad, { ...plain, maxGradNorm: 0.5 }, [normOf(grad), 0]);
    expect(Math.abs(normOf(param) - 0.5)).toBeLessThan(1e-5);
  });

  it('changes nothing when the gradient is not finite', async () => {
    const grad = new Float32Array(70).fill(Number.NaN);
    for (const momentum of [0, 0.9]) {
      const before = fresh(70);
      const after = await step(before, grad, { ...settings, momentum }, [Number.NaN, 1]);
      expect(after.param).toEqual(before.param);
      expect(after.velocity).toEqual(before.velocity);
    }
  });

  it('moves fewer bytes without momentum', () => {
    const memory = new ArenaPlan();
    const flat = (name: string) => memory.tensor(name, [64]);
    const [param, grad, velocity] = [flat('param'), flat('grad'), flat('velocity')];
    const shared = { param, grad, hyper: memory.tensor('hyper', [SGD_HYPER_SIZE]), norm: memory.tensor('norm', [2]) };
    expect(sgd(shared)[0]).toMatchObject({ flops: 5 * 64, bytes: 3 * 256 });
    expect(sgd({ ...shared, velocity })[0]).toMatchObject({ flops: 7 * 64, bytes: 5 * 256 });
  });

  it('refuses tensors of another length', async () => {
    const inputs = {
      param: { shape: [4], data: new Float32Array(4), written: true },
      grad: { shape: [5], data: new Float32Array(5) },
      velocity: { shape: [3], data: new Float32Array(3), written: true },
      hyper: { shape: [SGD_HYPER_SIZE], data: sgdHyper(settings) },
      norm: { shape: [2], data: new Float32Array(2) },
    };
    for (const fitting of ['grad', 'velocity'] as const) {
      const run = runKernel(gpu, inputs, (all) => sgd({ ...all, [fitting]: all.param }, { placement }));
      await expect(run).rejects.toMatchObject({ code: 'shape' });
    }
  });
});
