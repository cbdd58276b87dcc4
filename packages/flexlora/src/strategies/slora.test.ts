// The sparse stage is the exact mean of what clients send, and LoRA starts from the best approximation of it.
import { describe, expect, it } from 'vitest';
import { agreementOfElements, cosinesWithSum } from '../agreement.ts';
import { seededStream } from '../random.ts';
import { readOutState } from '../read-out.ts';
import { denseOf, denseSvd, dense as denseWith, distance, norm, productOf, sum } from '../testing/dense.ts';
import { fedit, mergeSparse, type SparseMerge, slora } from './index.ts';

const perRow = 3;

/** Ascending columns, `perRow` a row. */
function placesOf(out: number, inner: number): Uint32Array {
  const draw = seededStream('places', out, inner);
  return Uint32Array.from(
    Array.from({ length: out }, () => {
      const keys = Array.from({ length: inner }, draw);
      const order = [...keys.keys()].sort((a, b) => (keys[a] ?? 0) - (keys[b] ?? 0));
      return order.slice(0, perRow).sort((a, b) => a - b);
    }).flat(),
  );
}

function caseOf(out: number, inner: number, weights: readonly number[] = [0.5, 0.3, 0.2]): SparseMerge {
  const updates = weights.map((weight, i) => {
    const draw = seededStream('client', i, out, inner);
    return { weight, values: Float32Array.from({ length: out * perRow }, draw), name: `tab-${i}` };
  });
  return {
    out,
    in: inner,
    columns: placesOf(out, inner),
    start: null,
    updates,
    maxRank: Math.min(out, inner),
    name: 'q',
  };
}

const denseSparse = ({ out, in: inner, columns }: SparseMerge, values: ArrayLike<number>) => {
  const place = new Map(Array.from(columns, (column, k) => [Math.floor(k / perRow) * inner + column, k]));
  return denseWith(out, inner, (i, j) => values[place.get(i * inner + j) ?? -1] ?? 0);
};

it('clips a change of elements from where all started', () => {
  const merge = caseOf(24, 18);
  const start = Float64Array.from({ length: 24 * perRow }, seededStream('start'));
  const updates = merge.updates.map((update, i) => (i === 0 ? { ...update, clip: 0.25 } : update));
  const { values } = mergeSparse({ ...merge, start, updates });
  for (const [k, value] of values.entries()) {
    const from = start[k] ?? Number.NaN;
    const expected = updates.reduce((mean, each) => {
      const own = from + (each.weight === 0.5 ? 0.25 : 1) * ((each.values[k] ?? Number.NaN) - from);
      return mean + each.weight * own;
    }, 0);
    expect(value).toBeCloseTo(expected, 12);
  }
  expect(() => mergeSparse({ ...merge, updates: merge.updates.map((update) => ({ ...update, clip: 0 })) })).toThrow(
    /clipping is by a factor in \(0, 1\]/,
  );
});

describe.each([
  [24, 18],
  [18, 24],
  [40, 7],
  [60, 80],
])('a sparse merge of [%i, %i]', (out, inner) => {
  const merge = caseOf(out, inner);
  const exact = sum(merge.updates.map(({ weight, values }) => [weight, denseSparse(merge, values)] as const));

  it('is the exact mean, kept as elements and as a decomposition', () => {
    const { values, next, report } = mergeSparse(merge);
    expect(distance(denseSparse(merge, values), exact)).toBeLessThan(1e-15);
    expect(distance(denseOf(next), exact)).toBeLessThan(1e-12);
    expect(report.discardedTail).toBeLessThan(1e-12);
    expect(report.p).toEqual([]);
  });

  it('starts LoRA of every rank from the best approximation there is', () => {
    const { next } = mergeSparse(merge);
    const sigma = denseSvd(exact).sigma;
    for (const rank of [1, 2, 5]) {
      const { a, b, ...rest } = readOutState(next, { rank, scale: 2, seed: 'q' });
      const started = productOf({ ...rest, a, b });
      const error = distance(started, exact) * norm(exact);
      // Eckart and Young.
      expect(Math.abs(error - Math.hypot(...sigma.slice(rank)))).toBeLessThan(1e-6 * norm(exact));
    }
  });

  it('tells what truncation to the stored rank loses, which is much: random places have a flat spectrum', () => {
    const { next, report } = mergeSparse({ ...merge, maxRank: 4 });
    expect(next.rank).toBe(4);
    expect(report.discardedTail).toBeCloseTo(distance(denseOf(next), exact), 6);
    expect(report.discardedTail).toBeGreaterThan(0.3);
  });
});

describe('a sparse merge', () => {
  const merge = caseOf(24, 18);

  it('of clients that did not train is where they started', () => {
    const start = Float64Array.from(merge.updates[0]?.values ?? []);
    const updates = merge.updates.map((update) => ({ ...update, values: Float32Array.from(start) }));
    const { values } = mergeSparse({ ...merge, start, updates });
    expect(Math.max(...values.map((value, k) => Math.abs(value - (start[k] ?? 0))))).toBeLessThan(1e-15);
    expect(cosinesWithSum(agreementOfElements(updates, start))).toEqual([null, null, null]);
    const zeros = merge.updates.map((update) => ({ ...update, values: new Float32Array(72) }));
    expect(mergeSparse({ ...merge, updates: zeros }).next.rank).toBe(0);
  });

  it('gives the same for the same clients in the same order, and nearly for any order', () => {
    expect(mergeSparse(merge)).toEqual(mergeSparse(merge));
    const turned = mergeSparse({ ...merge, updates: [...merge.updates].reverse() });
    expect(distance(denseOf(turned.next), denseOf(mergeSparse(merge).next))).toBeLessThan(1e-13);
  });

  it('tells who goes along with the mean', () => {
    const [first] = merge.updates;
    const values = first?.values ?? new Float32Array();
    const against = { weight: 0.2, values: values.map((value) => -value) };
    const cosines = cosinesWithSum(agreementOfElements([{ weight: 0.8, values }, against], null));
    expect(cosines).toEqual([expect.closeTo(1, 12), expect.closeTo(-1, 12)]);
  });

  it('refuses by name what is no share, no such shape or no number', () => {
    const [first, second, third] = merge.updates;
    if (!first || !second || !third) throw new Error('three clients');
    const run = (...updates: SparseMerge['updates'][number][]) => mergeSparse({ ...merge, updates });
    expect(() => run(first, second)).toThrow(/weights of q sum to 0.8/);
    expect(() => run(first, second, { ...third, weight: -0.2 })).toThrow(/weight of tab-2 of q is -0.2/);
    expect(() => run(first, second, { ...third, values: new Float32Array(71) })).toThrow(/tab-2 of q has 71 elements/);
    const values = third.values.map((value, k) => (k === 5 ? Number.NaN : value));
    expect(() => run(first, second, { ...third, values })).toThrow(/tab-2 of q holds NaN at element 5/);
  });
});

describe('slora after its sparse rounds', () => {
  const client = (rank: number, weight: number) => {
    const draw = seededStream('lora', rank, weight);
    const fill = (length: number) => Float64Array.from({ length }, draw);
    const end = { out: 6, in: 5, rank, scale: 2, a: fill(rank * 5), b: fill(6 * rank) };
    return { weight, end, start: null };
  };

  it('averages factors as fedit does, and refuses mixed ranks', () => {
    const updates = [client(2, 0.4), client(2, 0.6)];
    const merge = { current: null, updates, maxRank: 5, name: 'q' };
    expect(slora.mergeMatrix(merge)).toEqual(fedit.mergeMatrix(merge));
    expect(() => slora.mergeMatrix({ ...merge, updates: [client(2, 0.4), client(3, 0.6)] })).toThrow(
      /slora averages factors of one rank, and q has ranks 2, 3/,
    );
  });
});
