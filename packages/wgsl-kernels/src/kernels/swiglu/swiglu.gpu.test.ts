import { beforeAll, describe, expect, it } from 'vitest';
import { at, sigmoid, swiglu, swigluGradient } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { PLACEMENTS } from '../shared/vector.ts';
import { swigluBackward, swigluForward } from './swiglu.ts';

/**
 * Relative error of σ(g) in epsilons: exp may err by 3 + 2|g| (WGSL, accuracy of built-ins), which counts by 1 − σ(g) in
 * the quotient; the sum half, the division 2.5.
 */
const sigmoidError = (g: number): number => (3 + 2 * Math.abs(g)) * sigmoid(-g) + 3;

// Beyond ±80 the kernel holds exp's argument, which leaves at most e^−80 where the true value is smaller still.
const FLOOR = 1e-34;

describe.each(PLACEMENTS)('swiglu, vectors %s', (placement) => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  function inputsOf(count: number) {
    const random = randomNumbers(count);
    const gate = random.floats(count, 12);
    const up = random.floats(count, 2);
    const dout = random.floats(count);
    // What overflows carelessly written sigmoids, at the end where a short workgroup works.
    gate.set([0, -20, 60, -90, 100, -1000].slice(0, count), Math.max(0, count - 6));
    return { gate, up, dout };
  }

  it.each([[1], [63], [64], [65], [257], [1009], [1028], [2052]])(
    'forward and backward of %i elements',
    async (count) => {
      const { gate, up, dout } = inputsOf(count);
      const shape = [count];
      const { out } = await runKernel(
        gpu,
        { gate: { shape, data: gate }, up: { shape, data: up }, out: { shape, written: true } },
        (tensors) => swigluForward(tensors, { placement }),
      );
      const expected = swiglu(gate, up);
      expectWithin('out', out, expected, (i) => {
        const g = at(gate, i);
        return EPSILON * (sigmoidError(g) + 1) * Math.abs(at(expected, i)) + FLOOR * Math.abs(g * at(up, i));
      });

      const { dgate, dup } = await runKernel(
        gpu,
        {
          gate: { shape, data: gate },
          up: { shape, data: up },
          dout: { shape, data: dout },
          dgate: { shape, written: true },
          dup: { shape, written: true },
        },
        (tensors) => swigluBackward(tensors, { placement }),
      );
      const gradient = swigluGradient(gate, up, dout);
      expectWithin('dup', dup, gradient.dup, (i) => {
        const g = at(gate, i);
        return EPSILON * (sigmoidError(g) + 1) * Math.abs(at(gradient.dup, i)) + FLOOR * Math.abs(g * at(dout, i));
      });
      // dgate = c·s·(1 + g·(1 − s)): the error of s counts by g·s in the bracket; 1 − s is rounded once, its product and
      // the sum twice more.
      expectWithin('dgate', dgate, gradient.dgate, (i) => {
        const g = at(gate, i);
        const [s, error] = [sigmoid(g), sigmoidError(g)];
        const factor = Math.abs(at(dout, i) * at(up, i)) * s;
        const bracket = 1 + Math.abs(g) * (1 - s);
        const inside = Math.abs(g) * (error * s + 1) + bracket;
        return (
          EPSILON * factor * (bracket * (error + 2) + inside) +
          FLOOR * Math.abs(at(dout, i) * at(up, i)) * (1 + Math.abs(g))
        );
      });
    },
  );

  it('refuses different shapes', async () => {
    const inputs = {
      gate: { shape: [4], data: new Float32Array(4) },
      up: { shape: [5], data: new Float32Array(5) },
      out: { shape: [4], written: true },
    };
    await expect(runKernel(gpu, inputs, (tensors) => swigluForward(tensors, { placement }))).rejects.toMatchObject({
      code: 'shape',
    });
  });
});
