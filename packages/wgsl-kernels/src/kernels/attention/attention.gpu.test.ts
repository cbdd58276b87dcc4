import { beforeAll, describe, expect, it } from 'vitest';
import {
  type AttentionShape,
  at,
  attention,
  attentionGradient,
  build,
  logSumExp,
  type Numbers,
  pair,
  queriesOf,
  scoresOf,
  sumOf,
  visible,
} from '../../reference/index.ts';
import type { Gpu } from '../../runtime/device.ts';
import { canRun } from '../../runtime/shader.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, runKernel } from '../../testing/index.ts';
import {
  type AttentionVariantName,
  attentionBackward,
  attentionForward,
  attentionShaders,
  attentionVariants,
} from './attention.ts';

interface TestShape extends AttentionShape {
  /** [Nk, 2]: first and last row of q that sees each key, without the window. */
  readonly keySpans: Uint32Array;
  readonly spans: Uint32Array;
  /** Rows of q, and of k and v. */
  readonly rows: number;
  /** What the device chooses when left out. */
  readonly variant?: AttentionVariantName;
}

/** Causal attention within examples of these lengths, laid end to end: a batch, packed rows, or single rows of padding. */
function shapeOf(
  lengths: readonly number[],
  sizes: { heads: number; kvHeads: number; headSize: number; window?: number },
): TestShape {
  const spans: number[] = [];
  const keySpans: number[] = [];
  let first = 0;
  for (const length of lengths) {
    for (let row = first; row < first + length; row += 1) {
      spans.push(first, row);
      keySpans.push(row, first + length - 1);
    }
    first += length;
  }
  return {
    ...sizes,
    window: sizes.window ?? null,
    rows: first,
    spans: Uint32Array.from(spans),
    keySpans: Uint32Array.from(keySpans),
  };
}

// Few head sizes, since each has pipelines of its own: one part, odd ones, those of real models, more parts than invocations
// of a workgroup; grouped heads 1 to 8, one position, more queries than a tile and than a workgroup, examples of unequal
// length, windows of every kind.
const shapes: TestShape[] = [
  shapeOf([1], { heads: 1, kvHeads: 1, headSize: 1 }),
  shapeOf([37, 37], { heads: 4, kvHeads: 2, headSize: 8 }),
  shapeOf([131, 1, 66], { heads: 2, kvHeads: 1, headSize: 8, window: 40 }),
  shapeOf([19, 5], { heads: 8, kvHeads: 1, headSize: 10, window: 1 }),
  shapeOf([65], { heads: 3, kvHeads: 3, headSize: 48, window: 7 }),
  shapeOf([13, 1, 1, 29], { heads: 6, kvHeads: 2, headSize: 67 }),
  shapeOf([33], { heads: 2, kvHeads: 2, headSize: 80, window: 100 }),
  shapeOf([5, 6], { heads: 4, kvHeads: 1, headSize: 132 }),
];

const inEveryVariant = shapes.flatMap((shape) =>
  attentionVariants(shape.headSize).map((variant): TestShape => ({ ...shape, variant })),
);

const label = ({ rows, heads, kvHeads, headSize, window, variant }: TestShape): string =>
  `${variant}, ${rows} rows, heads ${heads}/${kvHeads} of ${headSize}, window ${window}`;

const absolutes = (a: Numbers, x: number, b: Numbers, y: number, count: number): number =>
  sumOf(count, (d) => Math.abs(at(a, x + d) * at(b, y + d)));

interface Case {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly dout: Float32Array;
}

function draw(shape: TestShape, scale = 2): Case {
  const { rows, heads, kvHeads, headSize } = shape;
  const random = randomNumbers(rows * headSize);
  const queries = rows * heads * headSize;
  const keys = rows * kvHeads * headSize;
  return {
    q: random.floats(queries, scale),
    k: random.floats(keys, scale),
    v: random.floats(keys),
    dout: random.floats(queries),
  };
}

function tensorsOf(shape: TestShape, { q, k, v }: Case) {
  const { rows, spans } = shape;
  const queryShape = [rows, shape.heads * shape.headSize];
  const keyShape = [rows, shape.kvHeads * shape.headSize];
  return {
    spans: { shape: [rows, 2], data: spans },
    q: { shape: queryShape, data: q },
    k: { shape: keyShape, data: k },
    v: { shape: keyShape, data: v },
    out: { shape: queryShape },
    lse: { shape: [rows, shape.heads] },
  };
}

const forward = (gpu: Gpu, shape: TestShape, input: Case) => {
  const tensors = tensorsOf(shape, input);
  return runKernel(
    gpu,
    { ...tensors, out: { ...tensors.out, written: true }, lse: { ...tensors.lse, written: true } },
    (bound) => attentionForward(bound, shape),
  );
};

/**
 * Error of the score of query i with key j, in epsilons: a sum of headSize products (√d/2), the scaling of q and of its
 * factor (1.5), all relative to Σ|q||k|.
 */
function scoreError(shape: TestShape, { q, k }: Case, i: number, j: number): number {
  const { query, key } = pair(shape, i, j);
  const { headSize } = shape;
  return ((Math.sqrt(headSize) / 2 + 1.5) * absolutes(q, query, k, key, headSize)) / Math.sqrt(headSize);
}

/**
 * Relative error of Σ exp(score − highest) and of the weighted sums over the same weights, in epsilons, for one query.
 * A score errs as above, and so does the highest. exp errs by 3 + 2|x| for argument x, its difference by |x|/2; the keys
 * that become the highest rescale the sums once each, by exp of steps that add up to the range of the scores; T additions.
 */
function softmaxError(shape: TestShape, input: Case, i: number): number {
  const scores = scoresOf(input.q, input.k, shape, i);
  const errors = Math.max(...visible(shape, i).map((row) => scoreError(shape, input, i, row)));
  let highest = Number.NEGATIVE_INFINITY;
  let rescalings = 0;
  for (const score of scores) {
    if (score > highest) rescalings += 1;
    highest = Math.max(highest, score);
  }
  const range = highest - Math.min(...scores);
  return 2 * errors + 2.5 * range + 4 * rescalings + Math.sqrt(scores.length);
}

/** Compares what a forward pass gave with the reference. Of queries that see nothing, out is 0 and lse means nothing. */
function expectForward(
  shape: TestShape,
  input: Case,
  result: { readonly out: Float32Array; readonly lse: Float32Array },
): void {
  const { headSize } = shape;
  const expected = attention(input.q, input.k, input.v, shape);
  const seeing = (i: number) => visible(shape, i).length > 0;
  const errors = build(queriesOf(shape), (i) => (seeing(i) ? softmaxError(shape, input, i) : 0));
  // Σ p|v|: out is a mean of values, weighted by p; numerator and denominator err alike, the division by 2.5.
  const magnitude = attention(input.q, input.k, input.v.map(Math.abs), shape).out;
  expectWithin('out', result.out, expected.out, (i) => {
    return EPSILON * (2 * at(errors, Math.floor(i / headSize)) + 2.5) * at(magnitude, i);
  });
  // log errs by 3 units in the last place or 2⁻²¹; the highest score by its own error, the sum of both by one rounding.
  const known = (values: Numbers) => build(queriesOf(shape), (i) => (seeing(i) ? at(values, i) : 0));
  expectWithin(
    'lse',
    known(result.lse),
    known(expected.lse),
    (i) => EPSILON * (at(errors, i) + 4 + 4 * Math.abs(at(expected.lse, i))),
  );
}

describe('attention', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  /** Whether this device has what the variant needs. */
  const runs = ({ headSize, variant }: TestShape): boolean =>
    variant !== 'quad' || attentionShaders(headSize).every((shader) => canRun(gpu, shader));

  it.each(inEveryVariant.map((shape) => [label(shape), shape] as const))('forward: %s', async (_, shape) => {
    if (!runs(shape)) return;
    const input = draw(shape);
    expectForward(shape, input, await forward(gpu, shape, input));
  });

  it('keeps scores apart that overflow exp', async () => {
    const shape = shapeOf([4], { heads: 1, kvHeads: 1, headSize: 1 });
    const input = {
      q: Float32Array.of(1, 1, 1, -1),
      k: Float32Array.of(-500, 200, 500, -500),
      v: Float32Array.of(1, 2, 3, 4),
      dout: new Float32Array(4),
    };
    const { out, lse } = await forward(gpu, shape, input);
    expect([...out]).toEqual([1, 2, 3, expect.closeTo(2.5, 5)]);
    expect([...lse]).toEqual([-500, 200, 500, expect.closeTo(500 + Math.log(2), 4)]);
  });

  it.each(
    inEveryVariant
      .filter(({ variant }) => variant === 'tile' || variant === 'quad')
      .map((shape) => [label(shape), shape] as const),
  )('backward: %s', async (_, shape) => {
    if (!runs(shape)) return;
    const input = draw(shape);
    const { q, k, v, dout } = input;
    const { headSize, heads, kvHeads, rows } = shape;
    const reference = attention(q, k, v, shape);
    const out = Float32Array.from(reference.out);
    const lse = Float32Array.from(reference.lse);
    const tensors = tensorsOf(shape, input);
    const result = await runKernel(
      gpu,
      {
        ...tensors,
        out: { ...tensors.out, data: out },
        lse: { ...tensors.lse, data: lse },
        dout: { shape: tensors.q.shape, data: dout },
        keySpans: { shape: [shape.rows, 2], data: shape.keySpans },
        stats: { shape: [...tensors.lse.shape, 2], written: true },
        dq: { shape: tensors.q.shape, written: true },
        dk: { shape: tensors.k.shape, written: true },
        dv: { shape: tensors.k.shape, written: true },
      },
      (bound) => attentionBackward(bound, shape),
    );
    const expected = attentionGradient(q, k, v, dout, shape);
    const bounds = { dq: new Float64Array(q.length), dk: new Float64Array(k.length), dv: new Float64Array(v.length) };
    // Additions behind an element of dq, and of dk and dv.
    const queryTerms = Math.sqrt(rows) / 2;
    const keyTerms = Math.sqrt((rows * heads) / kvHeads) / 2;
    const dotTerms = Math.sqrt(headSize) / 2 + 0.5;
    const scale = 1 / Math.sqrt(headSize);
    for (let i = 0; i < queriesOf(shape); i += 1) {
      const scores = scoresOf(q, k, shape, i);
      const total = logSumExp(scores, 0, scores.length);
      for (const [n, j] of visible(shape, i).entries()) {
        const score = at(scores, n);
        const { query, key } = pair(shape, i, j);
        const probability = Math.exp(score - total);
        // exp(score − lse): the score, lse rounded once, the difference, and exp's 3 + 2|x|.
        const relative = scoreError(shape, input, i, j) + Math.abs(total) / 2 + 2.5 * Math.abs(score - total) + 3;
        // slope − delta: both are dots; delta's out was rounded once more.
        const dots =
          dotTerms * absolutes(dout, query, v, key, headSize) +
          (dotTerms + 0.5) * absolutes(dout, query, out, query, headSize);
        const slope = sumOf(headSize, (d) => at(dout, query + d) * (at(v, key + d) - at(out, query + d)));
        const ds = probability * scale * Math.abs(slope);
        const error = probability * scale * dots + ds * (relative + 2);
        for (let d = 0; d < headSize; d += 1) {
          const [atQuery, atKey] = [query + d, key + d];
          bounds.dq[atQuery] = at(bounds.dq, atQuery) + (error + ds * queryTerms) * Math.abs(at(k, atKey));
          bounds.dk[atKey] = at(bounds.dk, atKey) + (error + ds * keyTerms) * Math.abs(at(q, atQuery));
          bounds.dv[atKey] = at(bounds.dv, atKey) + probability * (relative + keyTerms) * Math.abs(at(dout, atQuery));
        }
      }
    }
    for (const name of ['dq', 'dk', 'dv'] as const) {
      expectWithin(name, result[name], expected[name], (i) => EPSILON * at(bounds[name], i));
    }
  });

  /** Forward and then backward; rows of q and of k as their lengths say. */
  async function passes(shape: TestShape, { q, k, v, dout }: Case) {
    const queryShape = [q.length / (shape.heads * shape.headSize), shape.heads * shape.headSize];
    const keyShape = [k.length / (shape.kvHeads * shape.headSize), shape.kvHeads * shape.headSize];
    const lse = [at(queryShape, 0), shape.heads];
    return await runKernel(
      gpu,
      {
        ...{ q: { shape: queryShape, data: q }, k: { shape: keyShape, data: k }, v: { shape: keyShape, data: v } },
        spans: { shape: [at(queryShape, 0), 2], data: shape.spans },
        keySpans: { shape: [at(keyShape, 0), 2], data: shape.keySpans },
        ...{ out: { shape: queryShape, written: true }, lse: { shape: lse, written: true } },
        ...{ dout: { shape: queryShape, data: dout }, stats: { shape: [...lse, 2], written: true } },
        dq: { shape: queryShape, written: true },
        ...{ dk: { shape: keyShape, written: true }, dv: { shape: keyShape, written: true } },
      },
      (bound) => [...attentionForward(bound, shape), ...attentionBackward(bound, shape)],
    );
  }

  it('gives nothing to keys that come after every query with a gradient', async () => {
    const shape = shapeOf([37], { heads: 4, kvHeads: 2, headSize: 8 });
    const input = draw(shape);
    const { out, lse } = await forward(gpu, shape, input);
    const dout = input.dout.map((value, i) => (Math.floor(i / 32) === 5 ? value : 0));
    const tensors = tensorsOf(shape, input);
    const { dq, dk, dv } = await runKernel(
      gpu,
      {
        ...tensors,
        out: { ...tensors.out, data: out },
        lse: { ...tensors.lse, data: lse },
        dout: { shape: tensors.q.shape, data: dout },
        keySpans: { shape: [shape.rows, 2], data: shape.keySpans },
        stats: { shape: [...tensors.lse.shape, 2], written: true },
        dq: { shape: tensors.q.shape, written: true },
        dk: { shape: tensors.k.shape, written: true },
        dv: { shape: tensors.k.shape, written: true },
      },
      (bound) => attentionBackward(bound, shape),
    );
    const rowsOf = (values: Float32Array, width: number): number[] => [
      ...new Set([...values.entries()].filter(([, value]) => value !== 0).map(([i]) => Math.floor(i / width))),
    ];
    expect(rowsOf(dq, 32)).toEqual([5]);
    expect(rowsOf(dk, 16)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(rowsOf(dv, 16)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  /** A shape as each variant that runs here. */
  const variantsOf = (shape: TestShape): TestShape[] =>
    attentionVariants(shape.headSize)
      .map((variant) => ({ ...shape, variant }))
      .filter(runs);

  it('gives the rows of a whole pass, token by token, through a cache', async () => {
    for (const window of [3, null]) {
      for (const shape of variantsOf({ ...shapeOf([9], { heads: 4, kvHeads: 2, headSize: 8 }), window })) {
        const input = draw(shape);
        const whole = await forward(gpu, shape, input);
        // A cache longer than what is in it: what is not there yet must not be seen.
        const cached = (values: Float32Array, row: number) =>
          Float32Array.from({ length: 12 * 16 }, (_, i) => (i < 16 * (row + 1) ? at(values, i) : Number.NaN));
        for (let row = 0; row < 9; row += 1) {
          const { out } = await runKernel(
            gpu,
            {
              q: { shape: [1, 32], data: input.q.subarray(32 * row, 32 * (row + 1)) },
              k: { shape: [12, 16], data: cached(input.k, row) },
              v: { shape: [12, 16], data: cached(input.v, row) },
              spans: { shape: [1, 2], data: Uint32Array.of(0, row) },
              out: { shape: [1, 32], written: true },
              lse: { shape: [1, 4], written: true },
            },
            (bound) => attentionForward(bound, shape),
          );
          expect(out).toEqual(whole.out.subarray(32 * row, 32 * (row + 1)));
        }
      }
    }
  });

  it('gives the rows of a whole pass for queries behind a prompt, forward and backward', async () => {
    for (const window of [4, null]) {
      for (const shape of variantsOf({ ...shapeOf([13], { heads: 6, kvHeads: 2, headSize: 8 }), window })) {
        const input = draw(shape);
        const [width, first] = [48, 8];
        // The whole pass, with a gradient to the last five rows only, and these five alone over all keys.
        const dout = input.dout.map((value, i) => (i < first * width ? 0 : value));
        const whole = await passes(shape, { ...input, dout });
        const behind = await passes(
          {
            ...shape,
            rows: 5,
            spans: shape.spans.subarray(2 * first),
            // Each key is seen from its own row on, or from the first of the five; by none where the window ends before them.
            keySpans: Uint32Array.from(
              Array.from({ length: 13 }, (_, key) => {
                const last = window === null ? 12 : Math.min(12, key + window - 1);
                return last < first ? [1, 0] : [Math.max(key, first) - first, last - first];
              }).flat(),
            ),
          },
          { ...input, q: input.q.subarray(first * width), dout: input.dout.subarray(first * width) },
        );
        expect(behind.out).toEqual(whole.out.subarray(first * width));
        expect(behind.dq).toEqual(whole.dq.subarray(first * width));
        expect(behind.dk).toEqual(whole.dk);
        expect(behind.dv).toEqual(whole.dv);
      }
    }
  });

  it('attends by any spans: scattered, overlapping, of nothing', async () => {
    const random = randomNumbers(5);
    const rows = 150;
    const spans = Uint32Array.from(
      Array.from(random.integers(rows, 140), (first, i) =>
        i % 7 < 2 ? [first + 1, first] : [first, first + (i % 10)],
      ).flat(),
    );
    for (const window of [4, null]) {
      const base = { ...shapeOf([rows], { heads: 4, kvHeads: 2, headSize: 8 }), window, spans };
      for (const shape of variantsOf(base)) {
        const input = draw(shape);
        expectForward(shape, input, await forward(gpu, shape, input));
      }
    }
  });

  it('attends with few queries to many keys', async () => {
    // One query over more keys than are looked at together, over fewer, and over one.
    const cases: [headSize: number, last: number][] = [
      [8, 299],
      [67, 130],
      [48, 0],
    ];
    for (const [headSize, last] of cases) {
      const keys = 300;
      const base = { ...shapeOf([1], { heads: 4, kvHeads: 2, headSize }), spans: Uint32Array.of(0, last) };
      const random = randomNumbers(headSize);
      const q = random.floats(4 * headSize, 2);
      const [k, v] = [random.floats(keys * 2 * headSize, 2), random.floats(keys * 2 * headSize)];
      for (const shape of variantsOf(base)) {
        const result = await runKernel(
          gpu,
          {
            q: { shape: [1, 4 * headSize], data: q },
            k: { shape: [keys, 2 * headSize], data: k },
            v: { shape: [keys, 2 * headSize], data: v },
            spans: { shape: [1, 2], data: shape.spans },
            out: { shape: [1, 4 * headSize], written: true },
            lse: { shape: [1, 4], written: true },
          },
          (bound) => attentionForward(bound, shape),
        );
        expectForward(shape, { q, k, v, dout: q }, result);
      }
    }
  });

  it('takes other variants for few queries than for many', async () => {
    const names: (string[] | undefined)[] = [];
    for (const rows of [8, 9]) {
      const shape = shapeOf([rows], { heads: 1, kvHeads: 1, headSize: 8 });
      const tensors = tensorsOf(shape, draw(shape));
      await runKernel(
        gpu,
        { ...tensors, out: { ...tensors.out, written: true }, lse: { ...tensors.lse, written: true } },
        (bound) => {
          const calls = attentionForward(bound, shape);
          names.push(...calls.map(({ variants }) => variants?.map(({ variant }) => variant)));
          return calls;
        },
      );
    }
    expect(names).toEqual([
      ['split', 'each'],
      ['tile', 'quad'],
    ]);
  });

  it('gives zero to a query that sees nothing, and takes nothing from it', async () => {
    const base = { ...shapeOf([2], { heads: 1, kvHeads: 1, headSize: 8 }), spans: Uint32Array.of(1, 0, 0, 1) };
    for (const shape of variantsOf(base)) {
      const { out } = await forward(gpu, shape, draw(shape));
      expect([...out.subarray(0, 8)]).toEqual(Array(8).fill(0));
      expect([...out].every(Number.isFinite)).toBe(true);
    }
  });

  it('attends in more rows than a dispatch has workgroups in one dimension', async () => {
    const rows = 66_001;
    const shape = shapeOf(Array(rows).fill(1), { heads: 1, kvHeads: 1, headSize: 1 });
    const input = draw(shape);
    // Every query sees itself alone, so its output is its own value.
    const { out } = await forward(gpu, shape, input);
    expect(out).toEqual(input.v);
  });

  it('refuses heads that cannot share, heads too large and shapes that do not fit', async () => {
    const shape = shapeOf([1], { heads: 1, kvHeads: 1, headSize: 1 });
    const input = draw(shape);
    const tensors = tensorsOf(shape, input);
    const refuse = (sizes: TestShape) => runKernel(gpu, tensors, (bound) => attentionForward(bound, sizes));
    await expect(refuse({ ...shape, heads: 3, kvHeads: 2 })).rejects.toThrow('3 heads cannot share 2');
    await expect(refuse({ ...shape, headSize: 257 })).rejects.toMatchObject({ code: 'shape' });
    await expect(refuse({ ...shape, headSize: 2 })).rejects.toMatchObject({
      code: 'shape',
      message: 'attention-forward: q (q) is [1,1] where [1,2] is needed.',
    });
    await expect(refuse({ ...shape, variant: 'quad', headSize: 67 })).rejects.toMatchObject({
      code: 'shape',
    });
  });
});
