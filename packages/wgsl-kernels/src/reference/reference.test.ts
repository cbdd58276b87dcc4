// The reference is held to central differences: (f(x + h) − f(x − h)) / 2h for every input, h = 1e-5. With |f'''| of the
// order of the sums themselves the truncation error is about h² and the rounding error about 1e-16 · |f| / h, so 1e-8 of
// the sum of magnitudes leaves room for both and for nothing else.
import { describe, expect, it } from 'vitest';
import { randomNumbers } from '../testing/random.ts';
import {
  adamw,
  at,
  attention,
  attentionGradient,
  build,
  crossEntropy,
  denseOfSparse,
  dropout,
  dropoutMask,
  linearLora,
  linearLoraGradient,
  matmul,
  matmulMagnitude,
  type Numbers,
  pcg4d,
  rmsNorm,
  rmsNormGradient,
  rope,
  sgd,
  sparseLinear,
  sparseLinearGradient,
  sumOf,
  swiglu,
  swigluGradient,
  tailPenalty,
  tailPenaltyGradient,
} from './index.ts';

const STEP = 1e-5;
const random = randomNumbers(7);
const draw = (count: number): Float64Array => Float64Array.from(random.floats(count, 1.5));

/** Throws unless `gradient` is that of Σ weights · f(x) at x. */
function expectGradient(f: (x: Float64Array) => Numbers, x: Float64Array, weights: Numbers, gradient: Numbers): void {
  const total = (input: Float64Array): number => {
    const out = f(input);
    return sumOf(weights.length, (i) => at(weights, i) * at(out, i));
  };
  const out = f(x);
  const magnitude = sumOf(weights.length, (i) => Math.abs(at(weights, i) * at(out, i))) + 1;
  expect(gradient.length).toBe(x.length);
  for (const [i, value] of x.entries()) {
    const moved = (by: number) => total(x.map((old, j) => (i === j ? value + by : old)));
    const difference = (moved(STEP) - moved(-STEP)) / (2 * STEP);
    expect(Math.abs(difference - at(gradient, i)), `element ${i}`).toBeLessThan(1e-8 * magnitude);
  }
}

describe('reference', () => {
  it('multiplies matrices whichever is stored transposed', () => {
    // [1 2; 3 4] · [5 6; 7 8] = [19 22; 43 50]
    const sizes = { rows: 2, columns: 2, inner: 2 };
    const expected = [19, 22, 43, 50];
    expect([...matmul('NN', [1, 2, 3, 4], [5, 6, 7, 8], sizes)]).toEqual(expected);
    expect([...matmul('NT', [1, 2, 3, 4], [5, 7, 6, 8], sizes)]).toEqual(expected);
    expect([...matmul('TN', [1, 3, 2, 4], [5, 6, 7, 8], sizes)]).toEqual(expected);
    expect([...matmulMagnitude('NN', [1, -2, 3, 4], [5, 6, 7, -8], sizes)]).toEqual(expected);
  });

  it('has the gradient of RMSNorm', () => {
    const [x, weight, dy] = [draw(15), draw(5), draw(15)];
    const { rstd } = rmsNorm(x, weight, 1e-5);
    expectGradient((input) => rmsNorm(input, weight, 1e-5).y, x, dy, rmsNormGradient(x, weight, rstd, dy));
  });

  it('has the gradient of RoPE: the turn back', () => {
    const shape = { heads: 2, headSize: 4, positions: [0, 2, 1, 1, 0, 2] };
    const angles = draw(6);
    const [cos, sin] = [angles.map(Math.cos), angles.map(Math.sin)];
    const [x, dy] = [draw(48), draw(48)];
    expectGradient((input) => rope(input, cos, sin, shape, 1), x, dy, rope(dy, cos, sin, shape, -1));
    const back = rope(rope(x, cos, sin, shape, 1), cos, sin, shape, -1);
    for (const [i, value] of x.entries()) expect(back[i]).toBeCloseTo(value, 12);
  });

  it('has the gradient of SwiGLU', () => {
    const [gate, up, dout] = [draw(9), draw(9), draw(9)];
    const { dgate, dup } = swigluGradient(gate, up, dout);
    expectGradient((input) => swiglu(input, up), gate, dout, dgate);
    expectGradient((input) => swiglu(gate, input), up, dout, dup);
  });

  it('has the gradient of cross-entropy, and nothing for ignored rows', () => {
    const labels = [2, -100, 0];
    const logits = draw(12);
    const { loss, dlogits } = crossEntropy(logits, labels, 0.5);
    expectGradient((input) => crossEntropy(input, labels, 0.5).loss, logits, [0.5, 0.5, 0.5], dlogits);
    expect(loss[1]).toBe(0);
    expect([...dlogits.slice(4, 8)]).toEqual([0, 0, 0, 0]);
    expect(crossEntropy([0, 0, 0, 0], [1], 1).loss[0]).toBeCloseTo(Math.log(4), 14);
  });

  it('has the gradient of grouped-query attention', () => {
    // Two examples of three rows, one row that sees nothing; queries fewer than keys in the second case.
    const causal = [0, 0, 0, 1, 0, 2, 3, 3, 3, 4, 1, 0];
    for (const [spans, window] of [
      [causal, null],
      [causal, 2],
      [[0, 5, 2, 4], null],
    ] as const) {
      const shape = { heads: 4, kvHeads: 2, headSize: 3, window, spans };
      const queries = (spans.length / 2) * 12;
      const [q, k, v, dout] = [draw(queries), draw(36), draw(36), draw(queries)];
      const { dq, dk, dv } = attentionGradient(q, k, v, dout, shape);
      expectGradient((input) => attention(input, k, v, shape).out, q, dout, dq);
      expectGradient((input) => attention(q, input, v, shape).out, k, dout, dk);
      expectGradient((input) => attention(q, k, input, shape).out, v, dout, dv);
    }
  });

  it('lets a query attend to itself and what came before only', () => {
    const shape = { heads: 1, kvHeads: 1, headSize: 1, window: null, spans: [0, 0, 0, 1, 0, 2] };
    const { out, lse } = attention([1, 1, 1], [0, 0, 0], [3, 5, 10], shape);
    expect([...out]).toEqual([3, 4, 6].map((value) => expect.closeTo(value, 12)));
    expect([...lse]).toEqual([1, 2, 3].map((count) => expect.closeTo(Math.log(count), 12)));
    const near = attention([1, 1, 1], [0, 0, 0], [3, 5, 10], { ...shape, window: 2 });
    expect([...near.out]).toEqual([3, 4, 7.5].map((value) => expect.closeTo(value, 12)));
  });

  it('has the gradients of a LoRA layer', () => {
    const sizes = { scale: 1.7, rank: 2, rows: 3 };
    const [x, w, a, b, dy] = [draw(12), draw(20), draw(8), draw(10), draw(15)];
    const { dx, da, db } = linearLoraGradient({ x, w, a, b, ...sizes }, dy);
    expectGradient((input) => linearLora({ x: input, w, a, b, ...sizes }), x, dy, dx);
    expectGradient((input) => linearLora({ x, w, a: input, b, ...sizes }), a, dy, da);
    expectGradient((input) => linearLora({ x, w, a, b: input, ...sizes }), b, dy, db);
    const xLora = draw(12);
    const apart = linearLoraGradient({ x, xLora, w, a, b, ...sizes }, dy);
    expectGradient((input) => linearLora({ x: input, xLora, w, a, b, ...sizes }), x, dy, apart.dx);
    expectGradient((input) => linearLora({ x, xLora: input, w, a, b, ...sizes }), xLora, dy, apart.dxLora);
    expectGradient((input) => linearLora({ x, xLora, w, a: input, b, ...sizes }), a, dy, apart.da);
    expectGradient((input) => linearLora({ x, xLora, w, a, b: input, ...sizes }), b, dy, apart.db);
  });

  it('has the gradients of a sparse layer', () => {
    const layer = { columns: [0, 2, 1, 3, 0, 1, 2, 3, 1, 2], rows: 3, perRow: 2 };
    const [x, values, dy] = [draw(12), draw(10), draw(15)];
    const { dx, dvalues } = sparseLinearGradient({ ...layer, x, values }, dy);
    expectGradient((input) => sparseLinear({ ...layer, x: input, values }), x, dy, dx);
    expectGradient((input) => sparseLinear({ ...layer, x, values: input }), values, dy, dvalues);
    expect([...denseOfSparse({ ...layer, values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }, 4)]).toEqual([
      ...[1, 0, 2, 0, 0, 3, 0, 4, 5, 6, 0, 0, 0, 0, 7, 8, 0, 9, 10, 0],
    ]);
  });

  it('drops by the mask it tells, and scales what it keeps', () => {
    const settings = { rate: 0.25, seed: [5, 6], salt: 7 } as const;
    const mask = dropoutMask(64, settings);
    expect(new Set(mask)).toEqual(new Set([0, 1]));
    expect([
      ...dropout(
        build(64, () => 3),
        settings,
      ),
    ]).toEqual([...mask].map((kept) => kept * 4));
  });

  it('hashes as pcg4d does', () => {
    // The shader text of the paper in Python's integers modulo 2³², its first word.
    const cases: [words: [number, number, number, number], first: number][] = [
      [[0, 0, 0, 0], 251_852_841],
      [[1, 2, 3, 4], 908_250_390],
      [[4_294_967_295, 7, 2_654_435_769, 4_294_967_281], 259_822_133],
    ];
    for (const [words, first] of cases) expect(pcg4d(...words)).toBe(first);
  });

  it('steps as AdamW does', () => {
    const settings = {
      learningRate: 0.1,
      beta1: 0.9,
      beta2: 0.99,
      eps: 1e-8,
      weightDecay: 0.5,
      step: 1,
      maxGradNorm: 0,
    };
    const zero = build(2, () => 0);
    // The first step moves every parameter by the learning rate against its gradient, after the decay.
    const { param } = adamw({ param: [2, -1], m: zero, v: zero }, [3, -4], settings);
    expect(param[0]).toBeCloseTo(2 * 0.95 - 0.1, 8);
    expect(param[1]).toBeCloseTo(-1 * 0.95 + 0.1, 8);
    // Clipped to norm 1, a gradient of norm 5 counts a fifth.
    const clipped = adamw({ param: [0, 0], m: zero, v: zero }, [3, -4], { ...settings, maxGradNorm: 1 });
    expect(clipped.m[0]).toBeCloseTo(0.1 * 0.6, 6);
    expect(clipped.v[1]).toBeCloseTo(0.01 * 0.64, 6);
  });

  it('penalises tails with the gradient of its norm product', () => {
    const [rank, columns, out] = [4, 3, 5];
    const [a, b] = [draw(rank * columns), draw(out * rank)];
    for (const kept of [0, 1, 3]) {
      const gradient = tailPenaltyGradient({ rank, a, b }, kept);
      expectGradient((x) => [tailPenalty({ rank, a: x, b }, kept)], a, [1], gradient.a);
      expectGradient((x) => [tailPenalty({ rank, a, b: x }, kept)], b, [1], gradient.b);
    }
    // Of rank 1 the product of norms is the norm of the product.
    expect(tailPenalty({ rank: 1, a: [3, 4], b: [2] }, 0)).toBeCloseTo(10, 12);
  });

  it('steps as SGD does', () => {
    // Worked by hand: g = clip·grad + 0.5·p, v = 0.9·v + g, p = p − 0.1·v.
    const settings = { learningRate: 0.1, momentum: 0.9, weightDecay: 0.5, maxGradNorm: 0 };
    const first = sgd({ param: [2, -1], velocity: [0, 0] }, [3, -4], settings);
    expect([...first.velocity]).toEqual([4, -4.5]);
    expect(first.param[0]).toBeCloseTo(1.6, 12);
    expect(first.param[1]).toBeCloseTo(-0.55, 12);
    const second = sgd(first, [1, 0], settings);
    expect(second.velocity[0]).toBeCloseTo(0.9 * 4 + 1 + 0.8, 12);
    expect(second.param[1]).toBeCloseTo(-0.55 - 0.1 * (0.9 * -4.5 - 0.275), 12);
    // The norm of all parameters decides, also where these are only some of them.
    const still = { learningRate: 1, momentum: 0, weightDecay: 0, maxGradNorm: 1 };
    expect(sgd({ param: [0, 0], velocity: [0, 0] }, [3, -4], still).param[0]).toBeCloseTo(-0.6, 6);
    expect(sgd({ param: [0], velocity: [0] }, [3], still, 10).param[0]).toBeCloseTo(-0.3, 6);
  });
});
