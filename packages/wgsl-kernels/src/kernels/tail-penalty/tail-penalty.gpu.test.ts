import { beforeAll, describe, expect, it } from 'vitest';
import { at, tailPenaltyGradient } from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { tailPenalty } from './tail-penalty.ts';

describe('tail penalty', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  const run = (
    { out, rank, columns, kept, lambda }: Record<'out' | 'rank' | 'columns' | 'kept' | 'lambda', number>,
    { a, b, da, db }: Record<'a' | 'b' | 'da' | 'db', Float32Array>,
  ) =>
    runKernel(
      gpu,
      {
        a: { shape: [rank, columns], data: a },
        b: { shape: [out, rank], data: b },
        da: { shape: [rank, columns], data: da, written: true },
        db: { shape: [out, rank], data: db, written: true },
      },
      (tensors) => tailPenalty(tensors, { kept, lambda }),
    );

  it.each([
    [1, 1, 1, 0],
    [5, 3, 7, 2],
    [64, 8, 64, 7],
    [172, 16, 65, 8],
    [31, 100, 257, 99],
    [300, 4, 1, 1],
  ])('adds its gradient: B [%i, %i], A of %i columns, %i kept', async (out, rank, columns, kept) => {
    const random = randomNumbers(out + columns);
    const lambda = 0.3;
    const values = {
      a: random.floats(rank * columns),
      b: random.floats(out * rank),
      da: random.floats(rank * columns),
      db: random.floats(out * rank),
    };
    const found = await run({ out, rank, columns, kept, lambda }, values);
    const expected = tailPenaltyGradient({ rank, a: values.a, b: values.b }, kept);
    const elements = (rank - kept) * Math.max(out, columns);
    // A sum of squares errs by (terms of an invocation + 256 partial sums) halves of ε, its root by half of that; the ratio of
    // two roots by both, four roundings for roots, product and division, and one for the sum with what was there.
    const relative = (EPSILON / 2) * (elements / 256 + 1 + 256 + 8);
    for (const factor of ['a', 'b'] as const) {
      const before = values[`d${factor}`];
      const gradient = expected[factor];
      expectWithin(
        `d${factor}`,
        found[`d${factor}`],
        Float64Array.from(before, (value, i) => value + lambda * at(gradient, i)),
        (i) =>
          relative * lambda * Math.abs(at(gradient, i)) +
          EPSILON * (Math.abs(at(before, i)) + Math.abs(lambda * at(gradient, i))),
      );
      // What is kept has no gradient from here, to the byte.
      const isKept = (i: number) => (factor === 'a' ? i < kept * columns : i % rank < kept);
      const untouched = before.filter((_, i) => isKept(i));
      expect(found[`d${factor}`].filter((_, i) => isKept(i))).toEqual(untouched);
    }
  });

  it('is 0 where a tail is 0, as B is before anyone has trained', async () => {
    const shape = { out: 6, rank: 4, columns: 5, kept: 3, lambda: 1 };
    const values = {
      a: randomNumbers(1).floats(20),
      b: new Float32Array(24),
      da: new Float32Array(20),
      db: new Float32Array(24),
    };
    const { da, db } = await run(shape, values);
    expect([...da, ...db].every((value) => value === 0)).toBe(true);
  });

  it('refuses a tail of nothing, and factors that do not belong together', async () => {
    const values = {
      a: new Float32Array(20),
      b: new Float32Array(24),
      da: new Float32Array(20),
      db: new Float32Array(24),
    };
    const shape = { out: 6, rank: 4, columns: 5, lambda: 1 };
    for (const kept of [4, -1, 1.5])
      await expect(run({ ...shape, kept }, values)).rejects.toMatchObject({ code: 'shape' });
    const stray = runKernel(
      gpu,
      { a: { shape: [4, 5], data: values.a, written: true }, b: { shape: [8, 3], data: values.b, written: true } },
      ({ a, b }) => tailPenalty({ a, b, da: a, db: b }, { kept: 1, lambda: 1 }),
    );
    await expect(stray).rejects.toMatchObject({ code: 'shape' });
  });
});
