// The published rivals do what their papers say, and break the laws that they are known to break.
import { describe, expect, it } from 'vitest';
import { readOutState } from '../read-out.ts';
import type { MatrixUpdate } from '../spectrum.ts';
import { lowRankOf } from '../sum.ts';
import { denseOf, denseOfState, distance, norm, productOf, randomFactors, regauged, sum } from '../testing/dense.ts';
import type { Factors } from '../types.ts';
import { fedit, ffa, flexlora, hetlora, raflora, STRATEGY_NAMES, strategyByName, zeroPad } from './index.ts';

const SHAPE = { out: 24, in: 18 };
const client = (rank: number, weight: number, ...seed: (string | number)[]): MatrixUpdate => ({
  weight,
  end: randomFactors({ ...SHAPE, rank, scale: 2, wide: true }, 'client', rank, ...seed),
  start: randomFactors({ ...SHAPE, rank, scale: 2, wide: true }, 'start', rank, ...seed),
});
const alike = [client(6, 0.5, 1), client(6, 0.3, 2), client(6, 0.2, 3)];
const mixed = [client(3, 0.5, 1), client(6, 0.3, 2), client(9, 0.2, 3)];
const exact = (updates: readonly MatrixUpdate[]) =>
  sum(updates.map(({ weight, end }) => [weight, productOf(end)] as const));
const merge = (name: string, updates: readonly MatrixUpdate[]) =>
  denseOfState(strategyByName(name).mergeMatrix({ current: null, updates, maxRank: 18 }).next);

/** Those that merge what clients end with, and let them train both factors. */
const FREE = STRATEGY_NAMES.filter((name) => {
  const { mergesChanges, trains } = strategyByName(name);
  return !mergesChanges && trains === 'both';
});
const AVERAGE_PRODUCTS = ['flexlora', 'raflora'];

describe('the gauge of a client’s factors', () => {
  it.each(FREE)('%s', (name) => {
    const updates = strategyByName(name).mixedRanks ? mixed : alike;
    const changed = updates.map((update, i) => (i === 1 ? { ...update, end: regauged(update.end, 3, name) } : update));
    expect(distance(exact(changed), exact(updates))).toBeLessThan(1e-12);
    const difference = distance(merge(name, changed), merge(name, updates));
    // FlexLoRA sees products only; the others average factors, or parts of them.
    if (name === 'flexlora') expect(difference).toBeLessThan(1e-12);
    else expect(difference).toBeGreaterThan(1e-2);
  });
});

describe('the exact mean of updates', () => {
  it.each(FREE)('%s, for clients of one rank', (name) => {
    const error = distance(merge(name, alike), exact(alike));
    if (AVERAGE_PRODUCTS.includes(name)) expect(error).toBeLessThan(1e-12);
    else expect(error).toBeGreaterThan(0.1);
  });

  it('is what averages of factors give where all clients share A', () => {
    const [first] = alike.map(({ end }) => end) as [Factors];
    const updates = alike.map((update) => ({ ...update, end: { ...update.end, a: first.a } }));
    for (const name of ['fedit', 'zero-pad'])
      expect(distance(merge(name, updates), exact(updates))).toBeLessThan(1e-12);
  });
});

describe('fedit', () => {
  it('is the product of the mean factors', () => {
    const { next } = fedit.mergeMatrix({ current: null, updates: alike, maxRank: 18 });
    const mean = (pick: (factors: Factors) => ArrayLike<number>, k: number) =>
      alike.reduce((total, { weight, end }) => total + weight * (pick(end)[k] ?? 0), 0);
    for (const k of [0, 7, 50]) {
      expect(next.a[k]).toBeCloseTo(
        mean(({ a }) => a, k),
        14,
      );
      expect(next.b[k]).toBeCloseTo(
        mean(({ b }) => b, k),
        14,
      );
    }
    expect(next).toMatchObject({ ...SHAPE, rank: 6, scale: 2 });
  });

  it('refuses mixed ranks by name', () => {
    expect(() => fedit.mergeMatrix({ current: null, updates: mixed, maxRank: 18, name: 'q_proj' })).toThrow(
      /one rank, and q_proj has ranks 3, 6, 9; choose zero-pad/,
    );
  });
});

describe('zero-pad', () => {
  it('is fedit for clients of one rank, and lets what few have fade in both factors', () => {
    expect(merge('zero-pad', alike)).toEqual(merge('fedit', alike));
    const { next } = zeroPad.mergeMatrix({ current: null, updates: mixed, maxRank: 18 });
    const last = mixed[2]?.end as Factors;
    // Rows 7 to 9 are those of the last client alone: 0.2 · A and 0.2 · B, so 0.04 of its product.
    expect(next.rank).toBe(9);
    for (let i = 0; i < 3 * SHAPE.in; i += 1)
      expect(next.a[6 * SHAPE.in + i]).toBeCloseTo(0.2 * (last.a[6 * SHAPE.in + i] ?? 0), 14);
    expect(next.b[8]).toBeCloseTo(0.2 * (last.b[8] ?? 0), 14);
  });

  it('serves the first rows and columns, at any scale', () => {
    const { next } = zeroPad.mergeMatrix({ current: null, updates: mixed, maxRank: 18 });
    const served = readOutState(next, { rank: 4, scale: 0.5, seed: 'q_proj' });
    expect(served.a).toEqual(Float32Array.from(next.a.subarray(0, 4 * SHAPE.in)));
    for (let i = 0; i < SHAPE.out; i += 1)
      expect(served.b[i * 4 + 3]).toBeCloseTo(4 * (next.b[i * next.rank + 3] ?? 0), 5);
    const wide = readOutState(next, { rank: 20, scale: 2, seed: 'q_proj' });
    expect(distance(productOf(wide), denseOfState(next))).toBeLessThan(1e-6);
    // Directions that nobody has had yet can train; padding beyond the matrix cannot.
    for (let k = 0; k < 20; k += 1) {
      const row = wide.a.subarray(k * SHAPE.in, (k + 1) * SHAPE.in);
      expect(row.some((value) => value !== 0)).toBe(k < 18);
    }
  });
});

describe('hetlora', () => {
  it('gives shares in proportion to the norms of the products, and none to clients without weight', () => {
    const norms = mixed.map(({ end }) => norm(productOf(end)));
    const total = norms.reduce((a, b) => a + b, 0);
    const weighted = mixed.map((update, i) => ({ ...update, weight: (norms[i] ?? 0) / total }));
    expect(distance(merge('hetlora', mixed), merge('zero-pad', weighted))).toBeLessThan(1e-12);
    const silent = { ...client(9, 0, 9), end: { ...client(9, 0, 9).end, scale: 1e6 } };
    expect(distance(merge('hetlora', [...mixed, silent]), merge('hetlora', mixed))).toBeLessThan(1e-12);
  });

  it('takes the given weights before anyone has trained', () => {
    const updates = alike.map((update) => ({ ...update, end: { ...update.end, b: new Float64Array(24 * 6) } }));
    const { next } = hetlora.mergeMatrix({ current: null, updates, maxRank: 18 });
    const { next: expected } = zeroPad.mergeMatrix({ current: null, updates, maxRank: 18 });
    expect(next).toEqual(expected);
  });
});

describe('raflora', () => {
  it('averages every partition over those who reach it', () => {
    const part = (factors: Factors, from: number, to: number) =>
      sum(
        Array.from({ length: to - from }, (_, i) => {
          const k = from + i;
          const row = factors.a.subarray(k * SHAPE.in, (k + 1) * SHAPE.in);
          const column = Float64Array.from({ length: SHAPE.out }, (__, o) => factors.b[o * factors.rank + k] ?? 0);
          return [1, productOf({ ...factors, rank: 1, a: Float64Array.from(row), b: column })] as const;
        }),
      );
    const [three, six, nine] = mixed.map(({ end }) => end) as [Factors, Factors, Factors];
    const expected = sum([
      [0.5, part(three, 0, 3)],
      [0.3, part(six, 0, 3)],
      [0.2, part(nine, 0, 3)],
      [0.6, part(six, 3, 6)],
      [0.4, part(nine, 3, 6)],
      [1, part(nine, 6, 9)],
    ]);
    expect(distance(merge('raflora', mixed), expected)).toBeLessThan(1e-12);
  });

  it('is flexlora for clients of one rank', () => {
    expect(distance(merge('raflora', alike), merge('flexlora', alike))).toBeLessThan(1e-13);
  });

  it('keeps the state when nobody trains, where flexlora shrinks it', () => {
    const state = lowRankOf(randomFactors({ ...SHAPE, rank: 9, wide: true }, 'state'));
    const updates = [3, 6, 9].map((rank, k) => {
      const start = readOutState(state, { rank, scale: 2, seed: 'q_proj' });
      return { weight: [0.5, 0.3, 0.2][k] ?? 0, start, end: start };
    });
    const options = { current: state, updates, maxRank: 18 };
    expect(distance(denseOf(raflora.mergeMatrix(options).next), denseOf(state))).toBeLessThan(1e-6);
    expect(distance(denseOf(flexlora.mergeMatrix(options).next), denseOf(state))).toBeGreaterThan(0.1);
  });

  it('leaves out a partition that only clients without weight reach', () => {
    const updates = [client(3, 1, 1), client(9, 0, 2)];
    expect(distance(merge('raflora', updates), exact(updates))).toBeLessThan(1e-12);
  });
});

describe('ffa', () => {
  /** A client that trained B alone, on the first rows of one A. */
  const { a } = randomFactors({ ...SHAPE, rank: 9, scale: 2, wide: true }, 'frozen');
  const frozen = mixed.map((update) => ({
    ...update,
    end: { ...update.end, a: a.slice(0, update.end.rank * SHAPE.in) },
  }));

  it('is the exact mean of updates, for mixed ranks too, and leaves A to the byte', () => {
    const { next } = ffa.mergeMatrix({ current: null, updates: frozen, maxRank: 18 });
    expect(distance(denseOfState(next), exact(frozen))).toBeLessThan(1e-14);
    expect(next.a).toEqual(a);
    expect(ffa.trains).toBe('B');
  });

  it('refuses by name who trained A', () => {
    const [first, second, third] = frozen as [MatrixUpdate, MatrixUpdate, MatrixUpdate];
    const moved = { ...second, name: 'tab-2', end: mixed[1]?.end as Factors };
    const merge = () => ffa.mergeMatrix({ current: null, updates: [first, moved, third], maxRank: 18, name: 'q_proj' });
    expect(merge).toThrow(/keeps A as it was drawn, and tab-2 of q_proj has another A at element 0/);
  });
});
