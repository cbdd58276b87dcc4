// What must make no difference to a merge: the order of clients, the gauge and the scale of their factors, how work is shared
// out, and the unit in which it is counted.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readOut } from '../read-out.ts';
import type { MatrixUpdate } from '../spectrum.ts';
import { STRATEGY_NAMES, strategyByName } from '../strategies/index.ts';
import { lowRankOf, sumOfProducts } from '../sum.ts';
import { type Cohort, cohorts, EXTREMES, termsOf, updatesOf } from '../testing/arbitraries.ts';
import {
  type Dense,
  denseOf,
  denseOfState,
  denseSum,
  distance,
  norm,
  productOf,
  randomFactors,
  regauged,
  sum,
} from '../testing/dense.ts';
import type { Factors } from '../types.ts';
import { normaliseWeights } from '../weights.ts';

/** Updates that this strategy takes: of the first client's rank, or on the first client's A, where it asks for that. */
function acceptable(name: string, cohort: Cohort): MatrixUpdate[] {
  const { mixedRanks, trains } = strategyByName(name);
  const rank = cohort.clients[0]?.rank ?? 1;
  const largest = Math.max(...cohort.clients.map((client) => client.rank));
  const { a } = randomFactors({ ...cohort, rank: largest, wide: true }, cohort.seed, 'frozen');
  const clients = mixedRanks ? cohort.clients : cohort.clients.map((client) => ({ ...client, rank }));
  return updatesOf({ ...cohort, clients }).map((update) =>
    trains === 'B' ? { ...update, end: { ...update.end, a: a.slice(0, update.end.rank * cohort.in) } } : update,
  );
}

const stateFor = ({ out, in: inner, seed }: Cohort) =>
  lowRankOf(randomFactors({ out, in: inner, rank: 3, wide: true }, seed, 'state'), 'state');

const mergedBy = (name: string, cohort: Cohort, updates: readonly MatrixUpdate[]): Dense =>
  denseOfState(
    strategyByName(name).mergeMatrix({ current: stateFor(cohort), updates, maxRank: Number.POSITIVE_INFINITY }).next,
  );

const sharesOf = (counts: readonly number[], updates: readonly MatrixUpdate[]): MatrixUpdate[] => {
  const weights = normaliseWeights(counts);
  return updates.map((update, i) => ({ ...update, weight: weights[i] ?? 0 }));
};

/** The order of all but by a stream of numbers drawn. */
const shuffled = <T>(values: readonly T[], picks: readonly number[]): T[] => {
  const left = [...values];
  return values.flatMap((_, i) => left.splice((picks[i % picks.length] ?? 0) % left.length, 1));
};

const small = cohorts({ side: 12, rank: 5, clients: 6 });

describe('the order of clients', () => {
  it('makes no difference to a sum', () => {
    fc.assert(
      fc.property(cohorts(), fc.array(fc.nat(), { minLength: 1 }), (cohort, picks) => {
        const terms = termsOf(updatesOf(cohort));
        const there = sumOfProducts(terms).value;
        const back = sumOfProducts(shuffled(terms, picks)).value;
        expect(distance(denseOf(back), denseOf(there))).toBeLessThan(1e-12);
        for (const [k, sigma] of there.sigma.entries())
          expect(Math.abs((back.sigma[k] ?? 0) - sigma)).toBeLessThan(1e-12 * (there.sigma[0] ?? 0));
      }),
      { examples: EXTREMES.map((cohort): [Cohort, number[]] => [cohort, [5, 3, 71, 2]]) },
    );
  });

  it.each(STRATEGY_NAMES)('makes no difference to %s, and the same order gives the same bytes', (name) => {
    fc.assert(
      fc.property(small, fc.array(fc.nat(), { minLength: 1 }), (cohort, picks) => {
        const updates = acceptable(name, cohort);
        const there = mergedBy(name, cohort, updates);
        expect(distance(mergedBy(name, cohort, shuffled(updates, picks)), there)).toBeLessThan(1e-12);
        expect(mergedBy(name, cohort, updates)).toEqual(there);
      }),
    );
  });
});

describe('the gauge of factors', () => {
  it('makes no difference to a sum: B·G and G⁻¹·A are the same update', () => {
    fc.assert(
      fc.property(cohorts(), fc.constantFrom(1, 10, 100), (cohort, condition) => {
        const terms = termsOf(updatesOf(cohort));
        const turned = terms.map((term, k) => ({
          ...term,
          factors: regauged(term.factors, condition, cohort.seed, k),
        }));
        // Computing other factors errs as their condition.
        const bound = 1e-13 * condition * largestRank(cohort);
        expect(distance(denseOf(sumOfProducts(turned).value), denseOf(sumOfProducts(terms).value))).toBeLessThan(bound);
      }),
      { examples: EXTREMES.slice(0, 2).map((cohort): [Cohort, number] => [cohort, 10]) },
    );
  });

  // Those that average factors, or parts of them, fail this: strategies/rivals.test.ts.
  it.each(['flexlora', 'flexlora-carry', 'flexlora-frozen-tail', 'flora'])(
    'makes no difference to %s, of end and start',
    (name) => {
      fc.assert(
        fc.property(small, (cohort) => {
          const updates = updatesOf(cohort);
          const turned = updates.map((update, k) => ({
            ...update,
            end: regauged(update.end, 10, cohort.seed, k),
            start: update.start && regauged(update.start, 10, cohort.seed, k, 'start'),
          }));
          expect(distance(mergedBy(name, cohort, turned), mergedBy(name, cohort, updates))).toBeLessThan(1e-11);
        }),
      );
    },
  );
});

const largestRank = ({ clients }: Cohort): number => Math.max(...clients.map(({ rank }) => rank));

describe('clients', () => {
  it.each(STRATEGY_NAMES)(
    'of one kind are one client, whatever their shares, and one client is its update: %s',
    (name) => {
      fc.assert(
        fc.property(small, (cohort) => {
          const [only] = acceptable(name, cohort) as [MatrixUpdate];
          const identical = sharesOf(
            cohort.clients.map(({ count }) => count),
            cohort.clients.map(() => only),
          );
          const { mergesChanges, needsStart } = strategyByName(name);
          const expected = sum([
            [1, productOf(only.end)],
            ...(mergesChanges ? [[1, denseOf(stateFor(cohort))] as const] : []),
            ...(needsStart ? [[-1, productOf(only.start as Factors)] as const] : []),
          ]);
          expect(distance(mergedBy(name, cohort, sharesOf([7], [only])), expected)).toBeLessThan(1e-12);
          expect(distance(mergedBy(name, cohort, identical), expected)).toBeLessThan(1e-12);
        }),
      );
    },
  );

  it.each(STRATEGY_NAMES)('without weight make no difference to %s', (name) => {
    fc.assert(
      fc.property(small, fc.nat(), (cohort, at) => {
        const updates = acceptable(name, cohort);
        const silent = updates[at % updates.length] as MatrixUpdate;
        const end = { ...silent.end, b: silent.end.b.map((value) => 1e3 * value) };
        const joined = updates.toSpliced(at % (updates.length + 1), 0, { ...silent, weight: 0, end });
        expect(distance(mergedBy(name, cohort, joined), mergedBy(name, cohort, updates))).toBeLessThan(1e-12);
      }),
    );
  });

  it.each(STRATEGY_NAMES)('count the same in any unit: %s', (name) => {
    fc.assert(
      fc.property(small, fc.constantFrom(10, 1 / 3, 1e9), (cohort, unit) => {
        const counts = cohort.clients.map(({ count }) => count);
        const updates = acceptable(name, cohort);
        const other = sharesOf(
          counts.map((count) => count * unit),
          updates,
        );
        expect(distance(mergedBy(name, cohort, other), mergedBy(name, cohort, updates))).toBeLessThan(1e-12);
      }),
    );
  });

  it.each(STRATEGY_NAMES)('split in two count as before, but with hetlora: %s', (name) => {
    fc.assert(
      fc.property(small, fc.nat(), fc.double({ min: 0.01, max: 0.99, noNaN: true }), (cohort, which, part) => {
        const updates = acceptable(name, cohort);
        const at = which % updates.length;
        const client = updates[at] as MatrixUpdate;
        const halves = [part, 1 - part].map((share) => ({ ...client, weight: share * client.weight }));
        const difference = distance(
          mergedBy(name, cohort, updates.toSpliced(at, 1, ...halves)),
          mergedBy(name, cohort, updates),
        );
        // Its shares go by norms alone, so that who comes twice counts twice.
        if (name !== 'hetlora') expect(difference).toBeLessThan(1e-12);
        else if (updates.length > 1 && norm(productOf(client.end)) > 0) expect(difference).toBeGreaterThan(1e-9);
      }),
    );
  });
});

describe('conventions of scale', () => {
  const alpha = 16;
  const conventions: ((rank: number) => number)[] = [
    (rank) => alpha / rank,
    (rank) => alpha / Math.sqrt(rank),
    () => 2,
    (rank) => -alpha / rank,
  ];
  /** The same update under another convention. */
  const under = (factors: Factors, scale: number): Factors => ({
    ...factors,
    scale,
    b: factors.b.map((value) => (value * factors.scale) / scale),
  });

  it.each(STRATEGY_NAMES)('α/r, α/√r and a constant agree when merged by %s', (name) => {
    fc.assert(
      fc.property(small, fc.array(fc.nat(), { minLength: 1 }), (cohort, picks) => {
        const updates = acceptable(name, cohort);
        const changed = updates.map((update, i) => {
          const scaleOf = conventions[(picks[i % picks.length] ?? 0) % conventions.length] ?? (() => 1);
          return {
            ...update,
            end: under(update.end, scaleOf(update.end.rank)),
            start: update.start && under(update.start, scaleOf(update.end.rank + 1)),
          };
        });
        expect(distance(mergedBy(name, cohort, changed), mergedBy(name, cohort, updates))).toBeLessThan(1e-12);
      }),
    );
  });

  it('agree when served, at every rank', () => {
    fc.assert(
      fc.property(cohorts(), (cohort) => {
        const state = sumOfProducts(termsOf(updatesOf(cohort))).value;
        for (const rank of [1, 2, 7, 30]) {
          const [first, ...others] = conventions.map((scaleOf) =>
            readOut(state, { rank, scale: scaleOf(rank), seed: 'q_proj' }),
          );
          for (const other of others) {
            expect(other.a).toEqual(first?.a);
            expect(distance(productOf(other), productOf(first as Factors))).toBeLessThan(1e-6);
          }
        }
      }),
    );
  });
});

describe('work', () => {
  it('shared out between eighty clients merges to what one of them would have given', () => {
    const whole = randomFactors({ out: 256, in: 200, rank: 30, wide: true }, 'eighty');
    const counts = Array.from({ length: 80 }, (_, k) => 1 + ((k * 29) % 41));
    const terms = normaliseWeights(counts).map((weight) => ({ weight, factors: whole }));
    const { value } = sumOfProducts(terms);
    expect(value.rank).toBe(30);
    expect(distance(denseOf(value), denseSum([{ weight: 1, factors: whole }]))).toBeLessThan(1e-12);
  });
});
