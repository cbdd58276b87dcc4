import { beforeAll, describe, expect, it } from 'vitest';
import { at, matmul, matmulMagnitude, type ProductKind, type ProductSizes } from '../../reference/index.ts';
import type { KernelCall } from '../../runtime/call.ts';
import type { Gpu } from '../../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import { type MatmulTensors, matmulNN, matmulNT, matmulTN } from './matmul.ts';
import type { MatmulOptions } from './weight-matmul.ts';

const kernels: Record<ProductKind, (tensors: MatmulTensors, options?: MatmulOptions) => KernelCall[]> = {
  NT: matmulNT,
  NN: matmulNN,
  TN: matmulTN,
};
const kinds: ProductKind[] = ['NT', 'NN', 'TN'];

// Around the register tiles of 8 and 16 rows and the slices of the tall kernel, primes, single rows and columns, LoRA ranks; multiples
// of four, which have kernels of their own, that are no multiples of the tile.
const shapes: [rows: number, columns: number, inner: number][] = [
  [1, 1, 1],
  [1, 1, 257],
  [7, 9, 8],
  [8, 8, 32],
  [9, 7, 33],
  [16, 17, 31],
  [1, 67, 13],
  [61, 1, 64],
  [37, 4, 65],
  [4, 172, 64],
  [128, 65, 16],
  [3, 4, 4],
  [12, 20, 36],
  [68, 8, 132],
  [15, 12, 8],
  [17, 9, 12],
  [33, 24, 4],
];

describe('matmul', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  async function check(kind: ProductKind, sizes: ProductSizes, options: MatmulOptions): Promise<number> {
    const { rows, columns, inner } = sizes;
    const random = randomNumbers(rows + 1000 * columns + 1_000_000 * inner);
    const a = random.floats(rows * inner);
    const b = random.floats(inner * columns);
    const before = random.floats(rows * columns, 3);
    const { c } = await runKernel(
      gpu,
      {
        a: { shape: kind === 'TN' ? [inner, rows] : [rows, inner], data: a },
        b: { shape: kind === 'NT' ? [columns, inner] : [inner, columns], data: b },
        c: { shape: [rows, columns], written: true, ...(options.accumulate ? { data: before } : {}) },
      },
      (tensors) => kernels[kind](tensors, options),
    );
    const alpha = options.alpha ?? 1;
    const old = (i: number): number => (options.accumulate ? at(before, i) : 0);
    const magnitude = matmulMagnitude(kind, a, b, sizes);
    const expected = matmul(kind, a, b, sizes).map((value, i) => alpha * value + old(i));
    // A sum of K products errs by about √K half-epsilons of Σ|a||b| (rounding errors are independent: K only at worst);
    // α, its own rounding and the addition to c are three roundings more.
    return expectWithin(
      `matmul${kind} [${rows}, ${inner}]·[${inner}, ${columns}]`,
      c,
      expected,
      (i) => EPSILON * ((Math.sqrt(inner) + 1.5) * Math.abs(alpha) * at(magnitude, i) + 0.5 * Math.abs(old(i))),
    );
  }

  for (const kind of kinds) {
    it(`${kind} multiplies every shape, scales and adds`, async () => {
      const shares: number[] = [];
      for (const [rows, columns, inner] of shapes) {
        shares.push(await check(kind, { rows, columns, inner }, {}));
        shares.push(await check(kind, { rows, columns, inner }, { alpha: -1.75, accumulate: true }));
      }
      // The bound is of the size of the error: a kernel a hundred times less exact would not pass.
      expect(Math.max(...shares)).toBeGreaterThan(0.01);
    });
  }

  it('TN gives the same where a side is short, in every variant', async () => {
    const names = new Set<string>();
    for (const [short, long, inner] of [
      [4, 4, 1],
      [4, 172, 63],
      [8, 36, 130],
      [12, 64, 5],
      [16, 20, 256],
    ] as const) {
      for (const [rows, columns] of [
        [short, long],
        [long, short],
      ] as const) {
        const random = randomNumbers(rows + 7 * columns);
        const a = random.floats(rows * inner);
        const b = random.floats(inner * columns);
        const before = random.floats(rows * columns, 3);
        const magnitude = matmulMagnitude('TN', a, b, { rows, columns, inner });
        const expected = matmul('TN', a, b, { rows, columns, inner }).map((value, i) => 0.5 * value + at(before, i));
        const run = async (variant: string) => {
          const { c } = await runKernel(
            gpu,
            {
              a: { shape: [inner, rows], data: a },
              b: { shape: [inner, columns], data: b },
              c: { shape: [rows, columns], written: true, data: before },
            },
            (tensors) =>
              matmulTN(tensors, { alpha: 0.5, accumulate: true }).map(({ variants = [], ...call }) => {
                for (const each of variants) names.add(each.variant);
                return { ...call, ...variants.find((each) => each.variant === variant) };
              }),
          );
          expectWithin(
            `matmulTN ${variant} [${inner}, ${rows}]ᵀ·[${inner}, ${columns}]`,
            c,
            expected,
            (i) => EPSILON * ((Math.sqrt(inner) + 1.5) * 0.5 * at(magnitude, i) + 0.5 * Math.abs(at(before, i))),
          );
        };
        await run('tiles');
        if (gpu.subgroups) await run('quad');
      }
    }
    expect([...names].sort()).toEqual(['quad', 'tiles']);
  });

  it('is exact on whole numbers', async () => {
    const random = randomNumbers(3);
    const sizes = { rows: 19, columns: 23, inner: 101 };
    for (const kind of kinds) {
      const a = Float32Array.from(random.integers(19 * 101, 64));
      const b = Float32Array.from(random.integers(23 * 101, 64));
      const { c } = await runKernel(
        gpu,
        {
          a: { shape: kind === 'TN' ? [101, 19] : [19, 101], data: a },
          b: { shape: kind === 'NT' ? [23, 101] : [101, 23], data: b },
          c: { shape: [19, 23], written: true },
        },
        (tensors) => kernels[kind](tensors),
      );
      expect([...c]).toEqual([...matmul(kind, a, b, sizes)]);
    }
  });

  it('refuses shapes that do not fit, by name', async () => {
    const data = new Float32Array(6);
    const refuse = (make: (tensors: MatmulTensors) => KernelCall[], a: number[], b: number[], c: number[]) =>
      runKernel(gpu, { a: { shape: a, data }, b: { shape: b, data }, c: { shape: c } }, make);
    await expect(refuse(matmulNT, [2, 3], [3, 2], [2, 3])).rejects.toMatchObject({
      name: 'GpuError',
      code: 'shape',
      message: 'matmulNT: b (b) is [3,2] where [3,3] is needed.',
    });
    await expect(refuse(matmulNN, [2, 3], [2, 3], [2, 3])).rejects.toThrow('[2,3] where [3,3]');
    await expect(refuse(matmulTN, [3, 2], [3, 2], [3, 2])).rejects.toThrow('matmulTN: c (c) is [3,2] where [2,2]');
    await expect(refuse(matmulTN, [6], [3, 2], [2, 2])).rejects.toThrow('a matrix is needed');
  });
});
