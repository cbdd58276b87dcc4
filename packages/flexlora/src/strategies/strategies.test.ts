import { describe, expect, it } from 'vitest';
import { readOut, type ServedFactors } from '../read-out.ts';
import type { MatrixUpdate } from '../spectrum.ts';
import { lowRankOf } from '../sum.ts';
import { denseOf, denseSvd, distance, productOf, randomFactors, sum } from '../testing/dense.ts';
import { type Factors, type LowRank, zeroUpdate } from '../types.ts';
import { flexlora, flexloraCarry, STRATEGY_NAMES, strategyByName } from './index.ts';

const serve = (state: LowRank, rank: number): ServedFactors => readOut(state, { rank, scale: 2, seed: 'run q_proj' });

/** A client that was served and gave back what it got. */
const idle = (state: LowRank, rank: number, weight: number): MatrixUpdate => {
  const start = serve(state, rank);
  return { weight, end: { ...start, a: start.a.slice(), b: start.b.slice() }, start };
};

/** A client that moved both factors a little, in float32 as a tab would. */
function trained(state: LowRank, rank: number, weight: number, ...seed: (string | number)[]): MatrixUpdate {
  const start = serve(state, rank);
  const step = randomFactors({ ...start }, 'step', ...seed);
  return {
    weight,
    start,
    end: {
      ...start,
      a: start.a.map((value, i) => value + 0.01 * (step.a[i] ?? 0)),
      b: start.b.map((value, i) => value + 0.01 * (step.b[i] ?? 0)),
    },
  };
}

const RANKS = [4, 8, 16, 30];
const WEIGHTS = [0.4, 0.3, 0.2, 0.1];
const SHAPES = [
  { out: 64, in: 64 },
  { out: 172, in: 64 },
  { out: 64, in: 172 },
];
const stateOf = (shape: { out: number; in: number }, rank = 40): LowRank =>
  lowRankOf(randomFactors({ ...shape, rank }, 'state', shape.out));

describe('flexlora', () => {
  it('is Σ w·s·B·A to 1e-5 from float32 factors of mixed ranks and scales', () => {
    for (const shape of SHAPES) {
      const updates = [1, 4, 8, 16, 30].map((rank, k) => ({
        weight: (k + 1) / 15,
        end: randomFactors({ ...shape, rank, scale: [2, 4, 0.5, 16 / 30, 1][k] ?? 1 }, 'mixed', k),
        start: null,
      }));
      const whole = sum(updates.map(({ weight, end }) => [weight, productOf(end)] as const));
      const { next } = flexlora.mergeMatrix({ current: null, updates, maxRank: 64 });
      expect(distance(denseOf(next), whole)).toBeLessThan(1e-12);
      const reference = denseSvd(whole);
      for (const rank of [1, 4, 16, 30, 64])
        expect(distance(productOf(serve(next, rank)), reference.truncate(rank))).toBeLessThan(1e-5);
    }
  });

  it('brings back the old state when a client answers for it, so it is synchronous only', () => {
    const state = stateOf({ out: 64, in: 64 }, 8);
    const later = flexloraCarry.mergeMatrix({
      current: state,
      updates: [trained(state, 8, 1, 'later')],
      maxRank: 64,
    }).next;
    const updates = [idle(later, 8, 0.5), idle(state, 8, 0.5)];
    const { next } = flexlora.mergeMatrix({ current: later, updates, maxRank: 64 });
    expect(distance(denseOf(next), denseOf(later))).toBeGreaterThan(1e-3);
    expect([flexlora.synchronousOnly, flexloraCarry.synchronousOnly]).toEqual([true, false]);
  });
});

describe('flexlora-carry', () => {
  it('keeps M over 50 rounds in which nobody trains', () => {
    const shape = { out: 172, in: 64 };
    const first = stateOf(shape);
    let state = first;
    for (let round = 0; round < 50; round += 1) {
      const updates = RANKS.map((rank, k) => idle(state, rank, WEIGHTS[k] ?? 0));
      state = flexloraCarry.mergeMatrix({ current: state, updates, maxRank: 64 }).next;
    }
    expect(distance(denseOf(state), denseOf(first))).toBeLessThan(1e-6);
    expect(state.rank).toBe(first.rank);
  });

  it('with server momentum adds β of the last step to every step', () => {
    const shape = { out: 48, in: 40 };
    const beta = 0.6;
    let state = lowRankOf(randomFactors({ ...shape, rank: 6 }, 'momentum'));
    let expected = denseOf(state);
    let velocity: LowRank | null = null;
    let expectedStep = sum([[0, expected]]);
    for (let round = 0; round < 4; round += 1) {
      const updates = RANKS.map((rank, k) => trained(state, rank, WEIGHTS[k] ?? 0, 'momentum', round, k));
      const change = sum(
        updates.flatMap(({ weight, end, start }) => [
          [weight, productOf(end)] as const,
          [-weight, productOf(start as Factors)] as const,
        ]),
      );
      expectedStep = sum([
        [beta, expectedStep],
        [1, change],
      ]);
      expected = sum([
        [1, expected],
        [1, expectedStep],
      ]);
      const merged = flexloraCarry.mergeMatrix({ current: state, updates, maxRank: 40, momentum: { beta, velocity } });
      state = merged.next;
      velocity = merged.velocity?.value ?? null;
      expect(merged.velocity?.discardedTail).toBe(0);
      expect(distance(denseOf(velocity as LowRank), expectedStep)).toBeLessThan(1e-11);
      expect(distance(denseOf(state), expected)).toBeLessThan(1e-11);
    }
  });

  it('tells what keeping the momentum at a rank loses, and refuses what has none', () => {
    const state = stateOf({ out: 48, in: 40 }, 6);
    const updates = RANKS.map((rank, k) => trained(state, rank, WEIGHTS[k] ?? 0, 'tail', k));
    const merge = { current: state, updates, maxRank: 8, name: 'q_proj' };
    const momentum = { beta: 0.9, velocity: null };
    const { velocity } = flexloraCarry.mergeMatrix({ ...merge, momentum });
    expect(velocity?.value.rank).toBe(8);
    expect(velocity?.discardedTail).toBeGreaterThan(0.01);
    const none = flexloraCarry.mergeMatrix({ ...merge, momentum: { beta: 0, velocity: null } });
    expect(none).toEqual(flexloraCarry.mergeMatrix(merge));
    const refused = (name: string, beta: number) => () =>
      strategyByName(name).mergeMatrix({ ...merge, momentum: { beta, velocity: null } });
    expect(refused('flexlora-carry', 1)).toThrow(/Server momentum is 1; it must lie in \[0, 1\)/);
    for (const name of STRATEGY_NAMES)
      if (!strategyByName(name).mergesChanges)
        expect(refused(name, 0.9)).toThrow(new RegExp(`and ${name} does not merge changes`));
  });

  it('begins at zero, where what the first clients are served has no product', () => {
    const shape = { out: 20, in: 12 };
    const nothing = flexloraCarry.mergeMatrix({
      current: null,
      updates: RANKS.map((rank, k) => idle(zeroUpdate(shape), Math.min(rank, 12), WEIGHTS[k] ?? 0)),
      maxRank: 12,
    });
    expect(nothing.next.rank).toBe(0);
    expect(nothing.report).toMatchObject({ sigma: [], energyByRank: [], effectiveRank: 0, discardedTail: 0 });
  });
});

describe('every strategy', () => {
  it('refuses by name what cannot be merged', () => {
    const state = stateOf({ out: 16, in: 12 }, 4);
    const good = { ...trained(state, 4, 1, 'good'), name: 'tab-1' };
    const merge = (name: string, updates: MatrixUpdate[], current: LowRank | null = state) =>
      strategyByName(name).mergeMatrix({ current, updates, maxRank: 12, name: 'layers.0.q_proj' });
    const poisoned = { ...good.end, b: good.end.b.map((value, i) => (i === 9 ? Number.NaN : value)) };
    const expectError = (work: () => unknown, code: string, message: RegExp) => {
      expect(work).toThrow(expect.objectContaining({ name: 'MergeError', code }));
      expect(work).toThrow(message);
    };
    for (const name of STRATEGY_NAMES) {
      expectError(() => merge(name, []), 'weights', /no update of layers\.0\.q_proj/);
      expectError(() => merge(name, [{ ...good, weight: 0.5 }]), 'weights', /sum to 0\.5/);
      expectError(() => merge(name, [{ ...good, weight: -1 }]), 'weights', /tab-1 of layers\.0\.q_proj is -1/);
      expectError(
        () => merge(name, [{ ...good, end: poisoned }]),
        'non-finite',
        /tab-1 of layers\.0\.q_proj, factor B holds NaN/,
      );
      const other = { ...good, end: randomFactors({ out: 16, in: 11, rank: 4 }, 'other') };
      expectError(() => merge(name, [other]), 'shape', /\[16, 11\] where \[16, 12\]/);
      const foreign = stateOf({ out: 15, in: 12 }, 4);
      expectError(() => merge(name, [good], foreign), 'shape', /where \[15, 12\]/);
    }
    expectError(
      () => merge('flexlora-carry', [{ ...good, start: null }]),
      'strategy',
      /needs the start weights of tab-1/,
    );
    expectError(
      () => merge('flexlora-carry', [{ ...good, start: poisoned }]),
      'non-finite',
      /tab-1 of layers\.0\.q_proj, start weights, factor B holds NaN/,
    );
    expectError(
      () => strategyByName('median'),
      'unknown-strategy',
      /no strategy median; choose flexlora-carry, flexlora-frozen-tail, flexlora, /,
    );
  });
});
