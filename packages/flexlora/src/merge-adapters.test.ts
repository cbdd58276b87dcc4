import { describe, expect, it } from 'vitest';
import { type AdapterUpdate, mergeAdapters, readOutAdapter, stateOf } from './merge-adapters.ts';
import { flexlora, flexloraCarry } from './strategies/index.ts';
import { denseOfState, denseSvd, distance, productOf, randomFactors, sum } from './testing/dense.ts';
import { type Factors, storedRank } from './types.ts';
import { normaliseWeights } from './weights.ts';

const SHAPES = new Map([
  ['layers.0.q_proj', { out: 24, in: 16 }],
  ['layers.0.down_proj', { out: 16, in: 40 }],
]);

const adapter = (rank: number, scale: number, ...seed: string[]): Map<string, Factors> =>
  new Map(
    Array.from(SHAPES, ([module, shape]) => [module, randomFactors({ ...shape, rank, scale }, module, rank, ...seed)]),
  );

const cohort = (): AdapterUpdate[] => {
  const weights = normaliseWeights([10, 250, 40]);
  return [1, 4, 16].map((rank, k) => ({
    name: `client-${rank}`,
    weight: weights[k] ?? 0,
    end: adapter(rank, 2 ** k),
    start: adapter(rank, 2 ** k, 'start'),
  }));
};
const keepAll = () => Number.POSITIVE_INFINITY;

describe('mergeAdapters', () => {
  it('merges every matrix and reads it out at any rank, padded where the matrix is smaller', () => {
    const updates = cohort();
    const { state, reports } = mergeAdapters({ strategy: flexlora, current: null, updates, maxRank: keepAll });
    expect([...state.keys()]).toEqual(['layers.0.down_proj', 'layers.0.q_proj']);
    for (const rank of [1, 4, 16, 30]) {
      const read = readOutAdapter(state, (module) => ({ rank, scale: 2, seed: `weft ${module}` }));
      for (const [module, factors] of read) {
        const whole = sum(updates.map(({ weight, end }) => [weight, productOf(end.get(module) as Factors)] as const));
        expect(distance(productOf(factors), denseSvd(whole).truncate(rank))).toBeLessThan(1e-5);
        expect(factors.rank).toBe(rank);
        expect(reports.get(module)?.discardedTail).toBe(0);
      }
    }
  });

  it('carries a state read from an adapter', () => {
    const updates = cohort();
    const current = stateOf(adapter(8, 2, 'global'));
    const { state } = mergeAdapters({ strategy: flexloraCarry, current, updates, maxRank: keepAll });
    for (const [module, next] of state) {
      const terms = updates.flatMap(({ weight, end, start }) => [
        [weight, productOf(end.get(module) as Factors)] as const,
        [-weight, productOf(start?.get(module) as Factors)] as const,
      ]);
      const before = productOf(adapter(8, 2, 'global').get(module) as Factors);
      expect(distance(denseOfState(next), sum([[1, before], ...terms]))).toBeLessThan(1e-12);
    }
  });

  it('keeps each matrix at the rank asked for and reports what that lost', () => {
    const { state, reports } = mergeAdapters({
      strategy: flexlora,
      current: null,
      updates: cohort(),
      maxRank: (_, shape) => storedRank(shape, 2),
    });
    for (const [module, { rank }] of state) {
      expect(rank).toBe(8);
      expect(reports.get(module)?.discardedTail).toBeGreaterThan(0);
    }
  });

  it('refuses adapters of other modules or shapes by name', () => {
    const [first, second] = cohort() as [AdapterUpdate, AdapterUpdate];
    const merge =
      (updates: AdapterUpdate[], current: ReturnType<typeof stateOf> | null = null) =>
      () =>
        mergeAdapters({ strategy: flexlora, current, updates, maxRank: keepAll });
    const halves = [
      { ...first, weight: 0.5 },
      { ...second, weight: 0.5 },
    ] as const;
    const less = new Map([...second.end].slice(0, 1));
    const more = new Map([...second.end, ['layers.9.q_proj', randomFactors({ out: 2, in: 2, rank: 1 }, 0)]]);
    const modules = expect.objectContaining({ code: 'modules' });
    expect(merge([])).toThrow(expect.objectContaining({ code: 'weights' }));
    expect(merge([halves[0], { ...halves[1], end: less }])).toThrow(modules);
    expect(merge([halves[0], { ...halves[1], end: less }])).toThrow(/client-4 does not adapt layers\.0\.down_proj/);
    expect(merge([halves[0], { ...halves[1], end: more }])).toThrow(/client-4 adapts layers\.9\.q_proj/);
    expect(merge([halves[0], { ...halves[1], start: less }])).toThrow(/The start of client-4 does not adapt/);
    expect(merge([...halves], stateOf(less))).toThrow(/The global state does not adapt/);
    const resized = new Map([...second.end, ['layers.0.q_proj', randomFactors({ out: 24, in: 17, rank: 4 }, 0)]]);
    expect(merge([halves[0], { ...halves[1], end: resized }])).toThrow(
      /client-4 of layers\.0\.q_proj is \[24, 17\] where \[24, 16\]/,
    );
  });
});
