// Dispatches of more workgroups than one dimension holds are folded into two, and the last row of them is rarely full. So
// large a dispatch of every kernel would take minutes and gigabytes; small ones are folded here as large ones are, and must
// give the bytes of the plain dispatch. Norms and attention, which spend a workgroup on few elements, are also run large.
import { beforeAll, describe, expect, it } from 'vitest';
import { at } from '../reference/index.ts';
import type { KernelCall } from '../runtime/call.ts';
import type { Gpu } from '../runtime/device.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { openTestGpu, randomNumbers, runKernel, type TensorInput } from '../testing/index.ts';
import { weightOf } from '../weights/weight-matrix.ts';
import { adamw, adamwHyper } from './adamw/adamw.ts';
import { add } from './add/add.ts';
import { attentionBackward, attentionForward } from './attention/attention.ts';
import { copyRows } from './copy-rows/copy-rows.ts';
import { crossEntropy } from './cross-entropy/cross-entropy.ts';
import { dropout } from './dropout/dropout.ts';
import { embeddingForward } from './embedding/embedding.ts';
import { matmulNN, matmulNT, matmulTN } from './matmul/matmul.ts';
import { rmsNormBackward, rmsNormForward } from './rms-norm/rms-norm.ts';
import { rmsNormRopeBackward, rmsNormRopeForward } from './rms-norm-rope/rms-norm-rope.ts';
import { ropeBackward, ropeForward, ropeQueryKeyForward } from './rope/rope.ts';
import { sgd, sgdHyper } from './sgd/sgd.ts';
import { columnLists, sparseBackward, sparseForward } from './sparse-linear/sparse-linear.ts';
import { swigluBackward, swigluForward } from './swiglu/swiglu.ts';

const random = randomNumbers(11);
const product = (shape: readonly number[]): number => shape.reduce((all, size) => all * size, 1);
const floats = (...shape: number[]): TensorInput => ({ shape, data: random.floats(product(shape)) });
const integers = (shape: number[], value: (i: number) => number): TensorInput => ({
  shape,
  data: Uint32Array.from({ length: product(shape) }, (_, i) => value(i)),
});
const written = (...shape: number[]): TensorInput => ({ shape, written: true });
const changed = (input: TensorInput): TensorInput => ({ ...input, written: true });
const constant = (values: Float32Array | Int32Array): TensorInput => ({ shape: [values.length], data: values });

// Several workgroups of every kernel, the last of them partly empty.
const N = 203;
const D = 24;
const COUNT = 4099;

/** The calls, and their variants, with their workgroups in four rows, where only some fit in one. */
const folded = (calls: KernelCall[]): KernelCall[] =>
  calls.map(({ variants, ...call }) => {
    const inRows = <T extends Pick<KernelCall, 'workgroups'>>(each: T): T => {
      const [x, y, z] = each.workgroups;
      if (x < 2 || y > 1 || z > 1)
        throw new Error(`${call.name} has ${each.workgroups} workgroups; choose another size.`);
      return { ...each, workgroups: [Math.ceil(x / 4), 4, 1] };
    };
    return { ...inRows(call), ...(variants ? { variants: variants.map(inRows) } : {}) };
  });

describe('folded dispatches', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  function same<Name extends string>(
    what: string,
    inputs: Readonly<Record<Name, TensorInput>>,
    calls: (tensors: Readonly<Record<Name, Tensor>>) => KernelCall[],
  ): void {
    it(`give the same bytes: ${what}`, async () => {
      const plain = await runKernel(gpu, inputs, calls);
      expect(await runKernel(gpu, inputs, (tensors) => folded(calls(tensors)))).toEqual(plain);
      const names = Object.keys(inputs) as Name[];
      const results = names.filter((name) => inputs[name].written);
      expect(results.every((name) => plain[name].every(Number.isFinite))).toBe(true);
    });
  }

  same('add', { x: floats(COUNT), y: floats(COUNT), out: written(COUNT) }, add);

  const hyper = { learningRate: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, step: 1, maxGradNorm: 0 };
  const moment = (): TensorInput => changed(constant(new Float32Array(COUNT).fill(0.25)));
  same(
    'adamw',
    {
      ...{ param: changed(floats(COUNT)), grad: floats(COUNT), m: moment(), v: moment() },
      ...{ hyper: constant(adamwHyper(hyper)), norm: constant(Float32Array.of(1, 0)) },
    },
    adamw,
  );
  const descent = {
    ...{ param: changed(floats(COUNT)), grad: floats(COUNT), velocity: moment() },
    ...{ hyper: constant(sgdHyper({ ...hyper, momentum: 0.9 })), norm: constant(Float32Array.of(1, 0)) },
  };
  same('sgd with momentum', descent, sgd);
  same('sgd', descent, ({ velocity: _, ...tensors }) => sgd(tensors));

  const heads = { heads: 4, kvHeads: 2, headSize: D / 4, window: 50 };
  const attended = {
    ...{ q: floats(N, D), k: floats(N, D / 2), v: floats(N, D / 2) },
    spans: integers([N, 2], (i) => (i % 2) * (i >> 1)),
  };
  same('attention, forward', { ...attended, out: written(N, D), lse: written(N, 4) }, (tensors) =>
    attentionForward(tensors, heads),
  );
  same(
    'attention, backward',
    {
      ...attended,
      keySpans: integers([N, 2], (i) => (i % 2 === 0 ? i >> 1 : N - 1)),
      ...{ out: floats(N, D), lse: floats(N, 4), dout: floats(N, D), stats: written(N, 4, 2) },
      ...{ dq: written(N, D), dk: written(N, D / 2), dv: written(N, D / 2) },
    },
    (tensors) => attentionBackward(tensors, heads),
  );

  same('copy-rows', { x: floats(N, D), rows: integers([N], (i) => N - 1 - i), out: written(N, D) }, copyRows);
  for (const lanes of ['one', 'many'] as const) {
    same(
      `cross-entropy, ${lanes} a row`,
      {
        ...{ logits: changed(floats(N, D)), labels: constant(random.integers(N, D)), lossRows: written(N) },
        normaliser: constant(Float32Array.of(0.5)),
      },
      (tensors) => crossEntropy(tensors, { lanes }),
    );
  }
  same('dropout', { x: floats(COUNT), seed: integers([2], (i) => i), out: written(COUNT) }, (tensors) =>
    dropout(tensors, { rate: 0.3, salt: 1, accumulate: false }),
  );
  same(
    'embedding',
    { ids: integers([N], (i) => i % 5), table: floats(5, D), out: written(N, D) },
    ({ ids, table, out }) => embeddingForward({ ids, table: weightOf(table), out }),
  );

  for (const [shaders, width] of [
    ['vectors of four', 88],
    ['any sizes', 87],
  ] as const) {
    same(`matmul NT, ${shaders}`, { a: floats(N, width), b: floats(88, width), c: written(N, 88) }, matmulNT);
    same(`matmul NN, ${shaders}`, { a: floats(N, 24), b: floats(24, width), c: written(N, width) }, matmulNN);
    same(`matmul TN, ${shaders}`, { a: floats(N, 40), b: floats(N, width), c: written(40, width) }, matmulTN);
  }

  const normed = { x: floats(N, D), weight: floats(D) };
  for (const lanes of ['one', 'many'] as const) {
    same(`rms-norm, forward, ${lanes} a row`, { ...normed, y: written(N, D), rstd: written(N) }, (tensors) =>
      rmsNormForward(tensors, { eps: 1e-5, lanes }),
    );
    same(
      `rms-norm, backward, ${lanes} a row`,
      { ...normed, rstd: floats(N), dy: floats(N, D), dx: written(N, D) },
      (tensors) => rmsNormBackward(tensors, { accumulate: false, lanes }),
    );
  }

  const turned = {
    ...{ x: changed(floats(N, D)), positions: integers([N], (row) => N - 1 - row) },
    ...{ cos: floats(N, D / 8), sin: floats(N, D / 8) },
  };
  for (const [direction, kernel] of [
    ['forward', ropeForward],
    ['backward', ropeBackward],
  ] as const) {
    same(`rope, ${direction}`, turned, (tensors) => kernel(tensors, { heads: 4, headSize: D / 4 }));
  }

  const { x: turnedX, ...angles } = turned;
  same('rope, queries and keys', { q: turnedX, k: changed(floats(N, D / 2)), ...angles }, (tensors) =>
    ropeQueryKeyForward(tensors, { heads: 4, kvHeads: 2, headSize: D / 4 }),
  );
  const perHead = { x: floats(N, D), weight: floats(D / 4), ...angles };
  for (const lanes of ['one', 'many'] as const) {
    const sizes = { heads: 4, headSize: D / 4, lanes };
    same(`rms-norm-rope, forward, ${lanes} a head`, { ...perHead, rstd: written(4 * N), y: written(N, D) }, (tensors) =>
      rmsNormRopeForward(tensors, { ...sizes, eps: 1e-5 }),
    );
    same(
      `rms-norm-rope, backward, ${lanes} a head`,
      { ...perHead, rstd: floats(4 * N), dy: changed(floats(N, D)) },
      (tensors) => rmsNormRopeBackward(tensors, sizes),
    );
  }

  const gated = { gate: floats(COUNT), up: floats(COUNT) };
  same('swiglu, forward', { ...gated, out: written(COUNT) }, swigluForward);
  same(
    'swiglu, backward',
    { ...gated, dout: floats(COUNT), dgate: written(COUNT), dup: written(COUNT) },
    swigluBackward,
  );

  const OUTPUTS = 131;
  const places = Uint32Array.from({ length: 3 * OUTPUTS }, (_, k) => (k % 3) * 8 + (Math.floor(k / 3) % 8));
  const lists = columnLists(places, D);
  const sparse = {
    ...{ x: floats(N, D), values: floats(OUTPUTS, 3), y: changed(floats(N, OUTPUTS)), dx: changed(floats(N, D)) },
    columns: { shape: [OUTPUTS, 3], data: places },
    starts: { shape: [D + 1], data: lists.starts },
    entries: { shape: [3 * OUTPUTS], data: lists.entries },
    dvalues: written(OUTPUTS, 3),
  };
  same('sparse-linear', sparse, ({ y, ...t }) => [
    ...sparseForward({ ...t, y, places: t }),
    ...sparseBackward({ ...t, dy: y, places: t }),
  ]);

  it('reach every query beyond 65,535 workgroups of attention', async () => {
    const [rows, each, keys] = [65_537, 64, 5];
    const value = random.floats(keys * each);
    const { out } = await runKernel(
      gpu,
      {
        ...{ q: floats(rows, each), k: floats(keys, each), v: { shape: [keys, each], data: value } },
        spans: integers([rows, 2], (i) => (i >> 1) % keys),
        ...{ out: written(rows, each), lse: written(rows, each) },
      },
      (tensors) => {
        const calls = attentionForward(tensors, { heads: each, kvHeads: each, headSize: 1, window: null });
        expect(product(calls[0]?.workgroups ?? [])).toBeGreaterThan(65_535);
        return calls;
      },
    );
    // Every query sees one key, so its output is that key's value.
    const wrong = out.findIndex((found, i) => found !== at(value, (Math.floor(i / each) % keys) * each + (i % each)));
    expect(wrong).toBe(-1);
  });

  it('reach every row beyond 65,535 workgroups of norms, as queries and keys have with many heads', async () => {
    const [rows, width, period] = [8 * 65_537 + 1, 3, 7];
    const pattern = random.floats(period * width);
    const x = Float32Array.from({ length: rows * width }, (_, i) => at(pattern, i % pattern.length));
    const weight = floats(width);
    const norm = (data: Float32Array) => {
      const count = data.length / width;
      return runKernel(
        gpu,
        { x: { shape: [count, width], data }, weight, y: written(count, width), rstd: written(count) },
        (tensors) => {
          const calls = rmsNormForward(tensors, { eps: 1e-5 });
          expect(product(calls[0]?.workgroups ?? []) > 65_535).toBe(count === rows);
          return calls;
        },
      );
    };
    const [all, few] = [await norm(x), await norm(pattern)];
    expect(all.y.findIndex((found, i) => found !== at(few.y, i % pattern.length))).toBe(-1);
    expect(all.rstd.findIndex((found, i) => found !== at(few.rstd, i % period))).toBe(-1);
  });
});
