import { beforeAll, describe, expect, it } from 'vitest';
import { at, matmul, matmulMagnitude } from '../../reference/index.ts';
import type { KernelCall } from '../../runtime/call.ts';
import type { Gpu } from '../../runtime/device.ts';
import { canRun, shaderWarnings } from '../../runtime/shader.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers } from '../../testing/index.ts';
import { randomWeight, readError, runWithWeight } from '../../testing/weights.ts';
import { WEIGHT_TYPES, type WeightType } from '../../weights/encode.ts';
import type { WeightMatrix } from '../../weights/weight-matrix.ts';
import { weightMatmulShaders } from './variants.ts';
import { type MatmulOptions, weightNN, weightNT } from './weight-matmul.ts';

// Rows of x, out and in of W: the shapes of matmul.gpu.test.ts, and widths around blocks of 32 and rows of 64.
const shapes: [rows: number, outputs: number, inputs: number][] = [
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
  [5, 12, 31],
  [5, 12, 63],
  [5, 12, 65],
  [19, 36, 100],
];

// Cut into parts of 64 rows: whole ones, a short last one, and sizes that are no multiples of four.
const cutShapes: [rows: number, outputs: number, inputs: number][] = [
  [17, 128, 36],
  [5, 200, 64],
  [18, 131, 32],
  [3, 132, 33],
  [9, 65, 7],
];

/** Longest row of {@link cutShapes} in any type, times 64 rows: shorter ones have parts of more rows. */
const limitFor = (type: WeightType, inputs: number): number =>
  64 * (type === 'f32' ? 4 * inputs : { f16: 2, q8: 1, q4: 0.5 }[type] * 64 * Math.ceil(inputs / 64));

describe('products with a weight', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  interface Case {
    readonly type: WeightType;
    readonly kind: 'NT' | 'NN';
    readonly shape: readonly [rows: number, outputs: number, inputs: number];
    readonly options: MatmulOptions;
    readonly cut?: boolean;
  }

  /** Runs one product and returns the share of the bound that its error takes. */
  async function check({ type, kind, shape: [rows, outputs, inputs], options, cut = false }: Case): Promise<number> {
    const random = randomNumbers(rows + 1000 * outputs + 1_000_000 * inputs);
    const limit = cut ? limitFor(type, inputs) : 2 ** 27;
    const weight = randomWeight(type, [outputs, inputs], { seed: rows, limit });
    const parts = weight.refs.parts.length;
    expect(parts).toBe(cut ? Math.ceil(outputs / 64) : 1);
    const [inner, columns] = kind === 'NT' ? [inputs, outputs] : [outputs, inputs];
    const a = random.floats(rows * inner);
    const before = random.floats(rows * columns, 3);
    const { c } = await runWithWeight(
      gpu,
      weight,
      {
        a: { shape: [rows, inner], data: a },
        c: { shape: [rows, columns], written: true, ...(options.accumulate ? { data: before } : {}) },
      },
      (tensors, w) =>
        kind === 'NT'
          ? weightNT({ x: tensors.a, w, y: tensors.c }, options)
          : weightNN({ dy: tensors.a, w, dx: tensors.c }, options),
    );
    const sizes = { rows, columns, inner };
    const alpha = options.alpha ?? 1;
    const old = (i: number): number => (options.accumulate ? at(before, i) : 0);
    const magnitude = matmulMagnitude(kind, a, weight.values, sizes);
    const expected = matmul(kind, a, weight.values, sizes).map((value, i) => alpha * value + old(i));
    // As in matmul.gpu.test.ts, with the additions of further parts, and what a type's reading errs by.
    const additions = kind === 'NN' ? parts : 1;
    const factor = Math.sqrt(inner) + 1 + additions / 2 + readError(type);
    return expectWithin(
      `${kind} ${type} [${rows}, ${inner}] with W [${outputs}, ${inputs}]`,
      c,
      expected,
      (i) => EPSILON * (factor * Math.abs(alpha) * at(magnitude, i) + (additions / 2) * Math.abs(old(i))),
    );
  }

  for (const type of WEIGHT_TYPES) {
    for (const kind of ['NT', 'NN'] as const) {
      it(`${kind} reads ${type} in every shape, whole and cut, scales and adds`, async () => {
        const shares: number[] = [];
        for (const shape of shapes) {
          shares.push(await check({ type, kind, shape, options: {} }));
          shares.push(await check({ type, kind, shape, options: { alpha: -1.75, accumulate: true } }));
        }
        for (const shape of cutShapes) {
          shares.push(await check({ type, kind, shape, options: {}, cut: true }));
          shares.push(await check({ type, kind, shape, options: { alpha: 0.75, accumulate: true }, cut: true }));
        }
        // The bound is of the size of the error: a kernel a hundred times less exact would not pass.
        expect(Math.max(...shares)).toBeGreaterThan(0.01);
      });
    }
  }

  // Sizes around the tiles of every class, in its rows, its columns and its steps of k; narrow products have no branch. Other
  // types than f32 differ in how a vector is read, which a shader of each kind shows: every one takes seconds to compile.
  const variantCases: [
    type: WeightType,
    kind: 'NT' | 'NN',
    rows: number,
    outputs: number,
    inputs: number,
    rank: number,
  ][] = [
    ...(['NT', 'NN'] as const).flatMap((kind): [WeightType, 'NT' | 'NN', number, number, number, number][] => [
      ['f32', kind, 1, 36, 68, 4],
      ['f32', kind, 5, 52, 20, 8],
      ['f32', kind, 25, 100, 28, 4],
      ['f32', kind, 65, 72, 48, 12],
    ]),
    ['f32', 'NT', 23, 4, 64, 0],
    ['f32', 'NN', 35, 64, 8, 0],
    ['f32', 'NT', 33, 16, 36, 0],
    ['q8', 'NT', 25, 56, 132, 8],
    ['q4', 'NN', 25, 132, 56, 8],
  ];

  it.each(variantCases)(
    'computes the same in every variant: %s %s, %i rows, %i out, %i in, branch of rank %i, bias, residual',
    async (type, kind, rows, outputs, inputs, rank) => {
      let tried = 0;
      const random = randomNumbers(rows + outputs + inputs);
      const weight = randomWeight(type, [outputs, inputs], { seed: rows, limit: 2 ** 27 });
      const [inner, columns] = kind === 'NT' ? [inputs, outputs] : [outputs, inputs];
      const width = Math.max(1, rank);
      const factorShape = kind === 'NT' ? [columns, width] : [width, columns];
      const [a, branchInput, factor, bias, residual] = [
        random.floats(rows * inner),
        random.floats(rows * width),
        random.floats(width * columns),
        random.floats(columns),
        random.floats(rows * columns),
      ];
      const tensors = {
        a: { shape: [rows, inner], data: a },
        branchInput: { shape: [rows, width], data: branchInput },
        factor: { shape: factorShape, data: factor },
        bias: { shape: [columns], data: bias },
        residual: { shape: [rows, columns], data: residual },
        c: { shape: [rows, columns], written: true },
      };
      const scale = rank > 0 ? 1.5 : 0;
      const product = (t: Record<keyof typeof tensors, Tensor>, w: WeightMatrix): KernelCall[] => {
        const options = {
          ...(rank > 0 ? { branch: { input: t.branchInput, factor: t.factor, scale } } : {}),
          bias: t.bias,
          residual: t.residual,
        };
        return kind === 'NT' ? weightNT({ x: t.a, w, y: t.c }, options) : weightNN({ dy: t.a, w, dx: t.c }, options);
      };
      const sizes = { rows, columns, inner };
      const branchSizes = { rows, columns, inner: width };
      const [base, low] = [matmul(kind, a, weight.values, sizes), matmul(kind, branchInput, factor, branchSizes)];
      const expected = base.map((value, i) => value + scale * at(low, i) + at(bias, i % columns) + at(residual, i));
      const [magnitude, lowMagnitude] = [
        matmulMagnitude(kind, a, weight.values, sizes),
        matmulMagnitude(kind, branchInput, factor, branchSizes),
      ];
      const steps = Math.sqrt(inner + rank) + 3 + readError(type);
      const bound = (i: number): number =>
        EPSILON *
        (steps * (at(magnitude, i) + scale * at(lowMagnitude, i)) +
          Math.abs(at(bias, i % columns)) +
          2 * Math.abs(at(residual, i)));
      let names: string[] = [''];
      let first: Float32Array | null = null;
      for (let n = 0; n < names.length; n += 1) {
        const { c } = await runWithWeight(gpu, weight, tensors, (t, w) =>
          product(t, w).map((call) => {
            const runnable = (call.variants ?? []).filter(({ shader }) => canRun(gpu, shader));
            if (runnable.length > 0) names = runnable.map(({ variant }) => variant);
            const { variants: _, ...plain } = call;
            return { ...plain, ...runnable[n] };
          }),
        );
        const what = `${kind} ${type} [${rows}, ${inner}] to ${columns} columns, rank ${rank}, ${names[n]}`;
        expectWithin(what, c, expected, bound);
        // One fma a step, k upwards, in all of them.
        first ??= c;
        if (type !== 'q8') expect(c, what).toEqual(first);
        tried += 1;
      }
      // One for any device; wide products also have two staged tiles, and what a quad shares comes on top.
      const [least, quads] = rows === 1 ? [1, 0] : rows > 8 && rank > 0 ? [3, 2] : [1, 1];
      expect(tried).toBe(gpu.features.has('subgroups') ? least + quads : least);
    },
  );

  it('serves more than 65,535 rows of activations', async () => {
    for (const kind of ['NT', 'NN'] as const) {
      await check({ type: 'q4', kind, shape: [65_541, 8, 4], options: {} });
      await check({ type: 'f32', kind, shape: [65_541, 3, 5], options: { accumulate: true } });
    }
  });

  it('refuses activations of another shape, by name', async () => {
    const weight = randomWeight('q8', [4, 6]);
    const run = (x: number[], y: number[], nn = false) =>
      runWithWeight(gpu, weight, { x: { shape: x }, y: { shape: y } }, (tensors, w) =>
        nn ? weightNN({ dy: tensors.x, w, dx: tensors.y }) : weightNT({ x: tensors.x, w, y: tensors.y }),
      );
    await expect(run([2, 5], [2, 4])).rejects.toThrow('weightNT: x (x) is [2,5] where [2,6] is needed.');
    await expect(run([2, 6], [2, 6])).rejects.toThrow('weightNT: y (y) is [2,6] where [2,4] is needed.');
    await expect(run([2, 6], [2, 6], true)).rejects.toThrow('weightNN: dy (x) is [2,6] where [2,4] is needed.');
    await expect(run([2, 4], [3, 6], true)).rejects.toMatchObject({ name: 'GpuError', code: 'shape' });
  });

  it('compiles every shader without a warning', async () => {
    for (const shader of weightMatmulShaders.filter((each) => canRun(gpu, each))) {
      expect(await shaderWarnings(gpu, { shader, entryPoint: 'main', constants: {} }), shader.name).toEqual([]);
    }
  });
});
