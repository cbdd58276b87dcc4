import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, rmsNorm, rmsNormGradient, rope, sumOf } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { ropeTables } from '../rope/rope.ts';
import { rmsNormRopeBackward, rmsNormRopeForward } from './rms-norm-rope.ts';

const EPS = 1e-6;
const LANES = ['one', 'many'] as const;
const shapes: [rows: number, heads: number, headSize: number][] = [
  [1, 1, 2],
  [5, 3, 6],
  [7, 2, 8],
  [17, 4, 64],
  [9, 5, 128],
  [3, 2, 1032],
];
const cases = LANES.flatMap((lanes) => shapes.map(([rows, heads, headSize]) => ({ lanes, rows, heads, headSize })));

describe('rms-norm-rope', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  function inputsOf({ rows, heads, headSize }: { rows: number; heads: number; headSize: number }) {
    const random = randomNumbers(headSize + rows);
    const { cos, sin } = ropeTables(rows, headSize, { theta: 10_000, scaling: null });
    const table = [rows, headSize / 2];
    return {
      x: { shape: [rows, heads * headSize], data: random.floats(rows * heads * headSize, 2) },
      weight: { shape: [headSize], data: random.floats(headSize) },
      // Any order, as packed rows and a cache have.
      positions: { shape: [rows], data: Uint32Array.from({ length: rows }, (_, row) => (7 * row + 3) % rows) },
      cos: { shape: table, data: cos },
      sin: { shape: table, data: sin },
    };
  }

  /** |v| of an element and of the one it turns with, together: neither product of a turn is larger. */
  const withPartner = (v: ArrayLike<number>, headSize: number, i: number): number => {
    const half = headSize / 2;
    const partner = i % headSize < half ? i + half : i - half;
    return Math.abs(at(v, i)) + Math.abs(at(v, partner));
  };

  it.each(cases)('forward, $rows rows of $heads heads of $headSize, $lanes a head', async (shape) => {
    const { rows, heads, headSize, lanes } = shape;
    const inputs = inputsOf(shape);
    const { y, rstd } = await runKernel(
      gpu,
      {
        ...inputs,
        rstd: { shape: [rows * heads], written: true },
        y: { shape: inputs.x.shape, written: true },
      },
      (tensors) => rmsNormRopeForward(tensors, { heads, headSize, eps: EPS, lanes }),
    );
    const normed = rmsNorm(inputs.x.data, inputs.weight.data, EPS);
    const sizes = { heads, headSize, positions: inputs.positions.data };
    const expected = rope(normed.y, inputs.cos.data, inputs.sin.data, sizes, 1);
    // As for rms-norm: see there. The turn adds a rounding for each product and one for their sum.
    const relative = (Math.sqrt(headSize) / 2 + 1.5) / 2 + 2;
    expectWithin('rstd', rstd, normed.rstd, (i) => EPSILON * relative * at(normed.rstd, i));
    expectWithin('y', y, expected, (i) => EPSILON * (relative + 2) * withPartner(normed.y, headSize, i));
  });

  it.each(cases)('backward, $rows rows of $heads heads of $headSize, $lanes a head', async (shape) => {
    const { rows, heads, headSize, lanes } = shape;
    const inputs = inputsOf(shape);
    const dy = randomNumbers(rows).floats(rows * heads * headSize);
    const rstd = Float32Array.from(rmsNorm(inputs.x.data, inputs.weight.data, EPS).rstd);
    const result = await runKernel(
      gpu,
      {
        ...inputs,
        rstd: { shape: [rows * heads], data: rstd },
        dy: { shape: inputs.x.shape, data: dy, written: true },
      },
      (tensors) => rmsNormRopeBackward(tensors, { heads, headSize, lanes }),
    );
    const [x, weight] = [inputs.x.data, inputs.weight.data];
    const sizes = { heads, headSize, positions: inputs.positions.data };
    const turned = rope(dy, inputs.cos.data, inputs.sin.data, sizes, -1);
    const expected = rmsNormGradient(x, weight, rstd, turned);
    // dx = rstd·g − x·rstd³·mean(g·x): g errs by two roundings of the turn's products and one for the weight; the mean by
    // √D/2 of its magnitude besides.
    const g = (i: number): number => withPartner(dy, headSize, i) * Math.abs(at(weight, i % headSize));
    const magnitude = build(rows * heads, (head) =>
      sumOf(headSize, (i) => g(head * headSize + i) * Math.abs(at(x, head * headSize + i))),
    );
    expectWithin('dx', result.dy, expected, (i) => {
      const head = Math.floor(i / headSize);
      const scale = at(rstd, head);
      const second = (Math.abs(at(x, i)) * scale ** 3 * at(magnitude, head)) / headSize;
      return EPSILON * (3 * scale * g(i) + (Math.sqrt(headSize) / 2 + 6) * second);
    });
  });

  it('refuses a weight of another head size', async () => {
    const inputs = {
      ...inputsOf({ rows: 2, heads: 2, headSize: 4 }),
      weight: { shape: [2], data: new Float32Array(2) },
      rstd: { shape: [4], written: true },
      y: { shape: [2, 8], written: true },
    };
    const calls = runKernel(gpu, inputs, (tensors) => rmsNormRopeForward(tensors, { heads: 2, headSize: 4, eps: EPS }));
    await expect(calls).rejects.toMatchObject({ code: 'shape' });
  });
});
