// Strategies that leave a client the whole of M: what it trains and what it holds frozen beside it, and the merge of both.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readOutSide, readOutStart, sideRank } from '../read-out.ts';
import type { MatrixUpdate } from '../spectrum.ts';
import { lowRankOf } from '../sum.ts';
import { denseOf, distance, norm, productOf, randomFactors, sum } from '../testing/dense.ts';
import type { Factors, LowRank, Side } from '../types.ts';
import { flexloraCarry, flexloraFrozenTail, flora } from './index.ts';

const SPEC = { scale: 2, seed: 'run q_proj' };
const shapes = fc.record({ out: fc.integer({ min: 1, max: 40 }), in: fc.integer({ min: 1, max: 40 }) });

/** What a client of this rank applies to the weights. */
function seen(side: Side, state: LowRank, rank: number) {
  const beside = readOutSide(side, state, rank);
  const start = readOutStart(side, state, { rank, ...SPEC });
  return { start, beside, whole: sum([[1, productOf(start)], ...(beside ? [[1, productOf(beside)] as const] : [])]) };
}

/** A client that moved both of its factors. */
function trained(side: Side, state: LowRank, rank: number, weight: number, seed: number): MatrixUpdate {
  const { start } = seen(side, state, rank);
  const step = randomFactors(start, 'step', seed);
  const moved = (values: Factors['a'], by: Factors['a']) => values.map((value, i) => value + 0.05 * (by[i] ?? 0));
  return { weight, start, end: { ...start, a: moved(start.a, step.a), b: moved(start.b, step.b) } };
}

describe.each(['tail', 'whole'] as const)('a client with the %s beside', (side) => {
  it('applies all of M at every rank, as float32 holds it', () => {
    fc.assert(
      fc.property(shapes, fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 60 }), (shape, of, rank) => {
        const state = lowRankOf(randomFactors({ ...shape, rank: of }, 'state', of));
        const { whole, beside } = seen(side, state, rank);
        expect(distance(whole, denseOf(state))).toBeLessThan(1e-6);
        expect(beside?.rank ?? 0).toBe(sideRank(side, state.rank, rank));
      }),
    );
  });
});

it('has nothing beside where nothing is lacking', () => {
  const state = lowRankOf(randomFactors({ out: 20, in: 12, rank: 5 }, 'state'));
  expect(readOutSide('none', state, 2)).toBeNull();
  expect(readOutSide('tail', state, 5)).toBeNull();
  expect(readOutSide('tail', state, 4)?.rank).toBe(1);
  const nothing = { ...state, rank: 0, u: new Float64Array(0), sigma: new Float64Array(0), v: new Float64Array(0) };
  expect(readOutSide('whole', nothing, 3)).toBeNull();
});

it('has no tail of averaged factors', () => {
  const averaged = randomFactors({ out: 20, in: 12, rank: 5 }, 'average');
  expect(() => readOutSide('tail', averaged, 2)).toThrow(/no tail/);
});

it('refuses what float32 cannot hold', () => {
  const state = lowRankOf(randomFactors({ out: 4, in: 4, rank: 2, scale: 1e60 }, 'large'));
  expect(() => readOutSide('whole', state, 1)).toThrow(/too large for float32/);
});

const RANKS = [1, 3, 8];
const WEIGHTS = [0.5, 0.3, 0.2];
const state = lowRankOf(randomFactors({ out: 32, in: 24, rank: 14 }, 'state'));

describe('flexlora-frozen-tail', () => {
  it('merges as carry does', () => {
    const updates = RANKS.map((rank, i) => trained('tail', state, rank, WEIGHTS[i] ?? 0, i));
    const merge = { current: state, updates, maxRank: 24 };
    expect(flexloraFrozenTail.mergeMatrix(merge).next).toEqual(flexloraCarry.mergeMatrix(merge).next);
  });
});

describe('flora', () => {
  const updates = RANKS.map((rank, i) => trained('whole', state, rank, WEIGHTS[i] ?? 0, i));

  it('starts every client from fresh factors: B = 0, rows of A of their own', () => {
    for (const { start, end } of updates) {
      expect(start?.b.every((value) => value === 0)).toBe(true);
      expect(norm(productOf(end))).toBeGreaterThan(0);
    }
  });

  it('is M + Σ w·s·B·A, whoever trained at which rank', () => {
    const { next } = flora.mergeMatrix({ current: state, updates, maxRank: 24 });
    const whole = sum([[1, denseOf(state)], ...updates.map(({ weight, end }) => [weight, productOf(end)] as const)]);
    expect(distance(denseOf(next), whole)).toBeLessThan(1e-12);
  });

  it('reports what its cap on the rank cuts off', () => {
    const { next, report } = flora.mergeMatrix({ current: state, updates, maxRank: 10 });
    const whole = sum([[1, denseOf(state)], ...updates.map(({ weight, end }) => [weight, productOf(end)] as const)]);
    expect(next.rank).toBe(10);
    expect(report.discardedTail).toBeGreaterThan(0.01);
    expect(Math.abs(distance(denseOf(next), whole) - report.discardedTail)).toBeLessThan(1e-10);
  });

  it('changes nothing when nobody trains', () => {
    const idle = updates.map((update) => ({ ...update, end: update.start ?? update.end }));
    const { next } = flora.mergeMatrix({ current: state, updates: idle, maxRank: 24 });
    expect(distance(denseOf(next), denseOf(state))).toBeLessThan(1e-12);
  });
});
