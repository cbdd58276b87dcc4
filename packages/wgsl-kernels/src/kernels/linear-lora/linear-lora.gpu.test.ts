import { beforeAll, describe, expect, it } from 'vitest';
import { at, build, linearLora, linearLoraGradient, type Numbers } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { randomWeight, readError, runWithWeight } from '../../testing/weights.ts';
import type { WeightType } from '../../weights/encode.ts';
import { weightOf } from '../../weights/weight-matrix.ts';
import { linearLoraBackward, linearLoraForward, loraBackward, loraForward } from './linear-lora.ts';

// The last one's W is cut into three parts of 64 rows.
const cases: [type: WeightType, rows: number, inputs: number, outputs: number, rank: number, limit?: number][] = [
  ['f32', 1, 1, 1, 1],
  ['f32', 37, 24, 17, 4],
  ['f16', 65, 16, 33, 11],
  ['q8', 8, 36, 20, 4],
  ['q4', 9, 40, 132, 8, 64 * 32],
];

const magnitudes = (numbers: Numbers): Float64Array => build(numbers.length, (i) => Math.abs(at(numbers, i)));

describe('linear-lora', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it.each(cases)('%s: %i rows, %i in, %i out, rank %i', async (type, rows, inputs, outputs, rank, limit = 2 ** 20) => {
    const random = randomNumbers(rows + rank);
    const weight = randomWeight(type, [outputs, inputs], { seed: rows, limit });
    expect(weight.refs.parts.length).toBe(limit < 2 ** 20 ? 3 : 1);
    const [x, w, masked] = [random.floats(rows * inputs), weight.values, random.floats(rows * inputs)];
    const [a, b] = [random.floats(rank * inputs), random.floats(outputs * rank)];
    const dy = random.floats(rows * outputs);
    const before = {
      dx: random.floats(rows * inputs),
      da: random.floats(rank * inputs),
      db: random.floats(outputs * rank),
    };
    const scale = 1.5;
    const shapes = {
      x: { shape: [rows, inputs], data: x },
      masked: { shape: [rows, inputs], data: masked },
      a: { shape: [rank, inputs], data: a },
      b: { shape: [outputs, rank], data: b },
    };
    // Errors of sums of products of sums: each level adds half a √K of its length, relative to the same expression of
    // absolute values; scale, stores and additions are four roundings more, parts of W and its reading add theirs.
    const extra = 4 + readError(type) + weight.refs.parts.length / 2;
    const depth = (...lengths: number[]): number => lengths.reduce((sum, length) => sum + Math.sqrt(length) / 2, extra);

    for (const dropout of [false, true]) {
      const values = { x, w, a, b, scale, rank, rows, ...(dropout ? { xLora: masked } : {}) };
      const absolute = {
        ...values,
        x: magnitudes(x),
        w: magnitudes(w),
        a: magnitudes(a),
        b: magnitudes(b),
        ...(dropout ? { xLora: magnitudes(masked) } : {}),
      };
      const forward = await runWithWeight(
        gpu,
        weight,
        { ...shapes, y: { shape: [rows, outputs], written: true }, xa: { shape: [rows, rank], written: true } },
        (tensors, base) =>
          linearLoraForward({ ...tensors, w: base, ...(dropout ? { xLora: tensors.masked } : {}) }, { scale }),
      );
      const yMagnitude = linearLora(absolute);
      expectWithin('y', forward.y, linearLora(values), (i) => EPSILON * depth(inputs, rank) * at(yMagnitude, i));

      const expected = linearLoraGradient(values, dy);
      const bound = linearLoraGradient(absolute, magnitudes(dy));
      for (const accumulate of [false, true]) {
        const written = (name: keyof typeof before) => ({
          written: true,
          ...(accumulate ? { data: before[name] } : {}),
        });
        const backward = await runWithWeight(
          gpu,
          weight,
          {
            ...shapes,
            dy: { shape: [rows, outputs], data: dy },
            xa: { shape: [rows, rank], data: forward.xa },
            dxa: { shape: [rows, rank], written: true },
            dx: { shape: [rows, inputs], ...written('dx') },
            dxLora: { shape: [rows, inputs], written: true },
            da: { shape: [rank, inputs], ...written('da') },
            db: { shape: [outputs, rank], ...written('db') },
          },
          ({ masked: xLora, dxLora, ...tensors }, base) =>
            linearLoraBackward(
              { ...tensors, w: base, ...(dropout ? { xLora, dxLora } : {}) },
              { scale, accumulateDx: accumulate, accumulateFactors: accumulate },
            ),
        );
        const check = (name: keyof typeof before, ...lengths: number[]): void => {
          const old = (i: number): number => (accumulate ? at(before[name], i) : 0);
          expectWithin(
            name,
            backward[name],
            expected[name].map((value, i) => value + old(i)),
            (i) => EPSILON * (depth(...lengths) * at(bound[name], i) + (extra / 2) * Math.abs(old(i))),
          );
        };
        check('dx', outputs, rank);
        check('da', outputs, rows);
        check('db', inputs, rows);
        if (!dropout) continue;
        expectWithin('dxLora', backward.dxLora, expected.dxLora, (i) => {
          return EPSILON * depth(outputs, rank) * at(bound.dxLora, i);
        });
      }
    }
  });

  it('adds a branch to what is there, and its gradient too', async () => {
    const [rows, inputs, outputs, rank] = [5, 4, 3, 2];
    const random = randomNumbers(4);
    const [x, a, b] = [random.floats(20), random.floats(8), random.floats(6)];
    const [y, dy, dx] = [random.floats(15), random.floats(15), random.floats(20)];
    const result = await runKernel(
      gpu,
      {
        x: { shape: [rows, inputs], data: x },
        a: { shape: [rank, inputs], data: a },
        b: { shape: [outputs, rank], data: b },
        y: { shape: [rows, outputs], data: y, written: true },
        dy: { shape: [rows, outputs], data: dy },
        xa: { shape: [rows, rank], written: true },
        dxa: { shape: [rows, rank], written: true },
        dx: { shape: [rows, inputs], data: dx, written: true },
      },
      (tensors) => [...loraForward(tensors, { scale: 2 }), ...loraBackward(tensors, { scale: 2 })],
    );
    const values = { x, w: new Float32Array(12), a, b, scale: 2, rank, rows };
    const absolute = { ...values, x: magnitudes(x), a: magnitudes(a), b: magnitudes(b) };
    const [branch, gradient] = [linearLora(values), linearLoraGradient(values, dy)];
    const [size, gradientSize] = [linearLora(absolute), linearLoraGradient(absolute, magnitudes(dy))];
    // As above, with the addition to what was there.
    const bound = (magnitude: Numbers, old: Numbers) => (i: number) =>
      EPSILON * (7 * at(magnitude, i) + Math.abs(at(old, i)));
    expectWithin(
      'y',
      result.y,
      branch.map((value, i) => value + at(y, i)),
      bound(size, y),
    );
    expectWithin(
      'dx',
      result.dx,
      gradient.dx.map((value, i) => value + at(dx, i)),
      bound(gradientSize.dx, dx),
    );
  });

  it('sums factors over more than 65,535 rows', async () => {
    const rows = 65_541;
    const random = randomNumbers(6);
    const [x, dy] = [random.floats(rows * 4), random.floats(rows * 4)];
    const [a, b, w] = [random.floats(4), random.floats(4), new Float32Array(16)];
    const { da, db } = await runKernel(
      gpu,
      {
        x: { shape: [rows, 4], data: x },
        dy: { shape: [rows, 4], data: dy },
        a: { shape: [1, 4], data: a },
        b: { shape: [4, 1], data: b },
        y: { shape: [rows, 4], data: new Float32Array(rows * 4), written: true },
        xa: { shape: [rows, 1], written: true },
        dxa: { shape: [rows, 1], written: true },
        da: { shape: [1, 4], written: true },
        db: { shape: [4, 1], written: true },
      },
      (tensors) => [...loraForward(tensors, { scale: 1 }), ...loraBackward(tensors, { scale: 1 })],
    );
    const values = { x, w, a, b, scale: 1, rank: 1, rows };
    const absolute = { ...values, x: magnitudes(x), a: magnitudes(a), b: magnitudes(b) };
    const [expected, bound] = [linearLoraGradient(values, dy), linearLoraGradient(absolute, magnitudes(dy))];
    const factor = EPSILON * (Math.sqrt(rows) / 2 + 5);
    expectWithin('da', da, expected.da, (i) => factor * at(bound.da, i));
    expectWithin('db', db, expected.db, (i) => factor * at(bound.db, i));
  });

  it('computes only the gradients asked for', async () => {
    const random = randomNumbers(7);
    const [x, w, a, b, dy] = [
      random.floats(15),
      random.floats(12),
      random.floats(6),
      random.floats(8),
      random.floats(20),
    ];
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
