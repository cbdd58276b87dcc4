import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, linearLora, linearLoraGradient, type Numbers } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { weightOf } from '../../weights/weight-matrix.ts';
import { linearLoraBackward, linearLoraForward } from './linear-lora.ts';

const cases: [rows: number, inputs: number, outputs: number, rank: number][] = [
  [1, 1, 1, 1],
  [37, 24, 17, 4],
  [65, 16, 33, 11],
];

const magnitudes = (numbers: Numbers): Float64Array => build(numbers.length, (i) => Math.abs(at(numbers, i)));

describe('linear-lora', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  function draw(rows: number, inputs: number, outputs: number, rank: number) {
    const random = randomNumbers(rows + rank);
    return {
      x: random.floats(rows * inputs),
      w: random.floats(outputs * inputs),
      a: random.floats(rank * inputs),
      b: random.floats(outputs * rank),
      dy: random.floats(rows * outputs),
      before: random.floats(rows * inputs),
    };
  }

  it.each(cases)('%i rows, %i in, %i out, rank %i', async (rows, inputs, outputs, rank) => {
    const scale = 1.5;
    const { x, w, a, b, dy, before } = draw(rows, inputs, outputs, rank);
    const shapes = {
      x: { shape: [rows, inputs], data: x },
      w: { shape: [outputs, inputs], data: w },
      a: { shape: [rank, inputs], data: a },
      b: { shape: [outputs, rank], data: b },
    };
    const forward = await runKernel(
      gpu,
      { ...shapes, y: { shape: [rows, outputs], written: true }, xa: { shape: [rows, rank], written: true } },
      (tensors) => linearLoraForward({ ...tensors, w: weightOf(tensors.w) }, { scale }),
    );
    const sizes = { scale, rank, rows };
    // Errors of sums of products of sums: each level adds half a √K of its length, relative to the same expression of
    // absolute values; scale, stores and additions are four roundings more.
    const depth = (...lengths: number[]): number => lengths.reduce((sum, length) => sum + Math.sqrt(length) / 2, 4);
    const absolute = { x: magnitudes(x), w: magnitudes(w), a: magnitudes(a), b: magnitudes(b), ...sizes };
    const yMagnitude = linearLora(absolute);
    expectWithin('y', forward.y, linearLora({ x, w, a, b, ...sizes }), (i) => {
      return EPSILON * depth(inputs, rank) * at(yMagnitude, i);
    });

    const expected = linearLoraGradient({ x, w, a, b, ...sizes }, dy);
    const bound = linearLoraGradient(absolute, magnitudes(dy));
    for (const accumulateDx of [false, true]) {
      const backward = await runKernel(
        gpu,
        {
          ...shapes,
          dy: { shape: [rows, outputs], data: dy },
          xa: { shape: [rows, rank], data: forward.xa },
          dxa: { shape: [rows, rank], written: true },
          dx: { shape: [rows, inputs], written: true, ...(accumulateDx ? { data: before } : {}) },
          da: { shape: [rank, inputs], written: true },
          db: { shape: [outputs, rank], written: true },
        },
        (tensors) => linearLoraBackward({ ...tensors, w: weightOf(tensors.w) }, { scale, accumulateDx }),
      );
      const old = (i: number): number => (accumulateDx ? at(before, i) : 0);
      expectWithin(
        'dx',
        backward.dx,
        expected.dx.map((value, i) => value + old(i)),
        (i) => EPSILON * (depth(outputs, rank) * at(bound.dx, i) + Math.abs(old(i))),
      );
      expectWithin('da', backward.da, expected.da, (i) => EPSILON * depth(outputs, rows) * at(bound.da, i));
      expectWithin('db', backward.db, expected.db, (i) => EPSILON * depth(inputs, rows) * at(bound.db, i));
    }
  });

  it('computes only the gradients asked for', async () => {
    const { x, w, a, b, dy } = draw(5, 3, 4, 2);
    const inputs = {
      x: { shape: [5, 3], data: x },
      w: { shape: [4, 3], data: w },
      a: { shape: [2, 3], data: a },
      b: { shape: [4, 2], data: b },
      dy: { shape: [5, 4], data: dy },
      xa: { shape: [5, 2], data: new Float32Array(10).fill(1) },
      dxa: { shape: [5, 2] },
      db: { shape: [4, 2], written: true },
    };
    const { db } = await runKernel(gpu, inputs, (tensors) => {
      const calls = linearLoraBackward({ ...tensors, w: weightOf(tensors.w) }, { scale: 2 });
      expect(calls.map((call) => call.name)).toEqual(['matmul-tn']);
      return calls;
    });
    const sum = (column: number): number =>
      2 * [0, 1, 2, 3, 4].reduce((total, row) => total + at(dy, row * 4 + column), 0);
    expectWithin(
      'db',
      db,
      build(8, (i) => sum(Math.floor(i / 2))),
      () => 20 * EPSILON,
    );
  });
});
