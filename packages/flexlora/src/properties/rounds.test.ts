// What rounds come to when nobody trains, when everyone goes part of the way, and when clients answer for older versions.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readOut, type ServedFactors } from '../read-out.ts';
import type { MatrixUpdate } from '../spectrum.ts';
import { flexlora, flexloraCarry } from '../strategies/index.ts';
import { lowRankOf } from '../sum.ts';
import { shapes } from '../testing/arbitraries.ts';
import { type Dense, denseOf, denseSum, distance, productOf, randomFactors, sum } from '../testing/dense.ts';
import { type Factors, type LowRank, type Shape, storedRank } from '../types.ts';
import { normaliseWeights } from '../weights.ts';

interface Run extends Shape {
  /** Of the state that the run begins with. */
  readonly rank: number;
  readonly clients: readonly { readonly rank: number; readonly weight: number; readonly scale: number }[];
  readonly seed: number;
}

/** Ranks of clients below and above that of the state, never above the matrix's. */
const runs = ({ side = 24, clients = 6 } = {}): fc.Arbitrary<Run> =>
  shapes(side).chain((shape) => {
    const rank = fc.integer({ min: 1, max: Math.min(shape.out, shape.in) });
    const client = fc.record({
      rank,
      count: fc.integer({ min: 1, max: 100 }),
      scale: fc.constantFrom(0.5, 2, 16 / 30),
    });
    return fc
      .record({ rank, clients: fc.array(client, { minLength: 1, maxLength: clients }), seed: fc.integer() })
      .map(({ clients: drawn, ...rest }) => {
        const weights = normaliseWeights(drawn.map(({ count }) => count));
        return { ...shape, ...rest, clients: drawn.map((each, k) => ({ ...each, weight: weights[k] ?? 0 })) };
      });
  });

const EIGHTY = normaliseWeights(Array.from({ length: 80 }, (_, k) => 1 + (k % 7))).map((weight, k) => ({
  rank: [2, 2, 1, 4, 2, 2, 3, 2, 2, 8][k % 10] ?? 2,
  weight,
  scale: 2,
}));
const LARGE: readonly Run[] = [
  { out: 256, in: 160, rank: 150, clients: EIGHTY, seed: 1 },
  {
    out: 200,
    in: 256,
    rank: 60,
    clients: [
      { rank: 200, weight: 0.1, scale: 16 / 200 },
      { rank: 30, weight: 0.9, scale: 16 / 30 },
    ],
    seed: 2,
  },
];
const large = LARGE.map((run): [Run] => [run]);

const stateOf = ({ out, in: inner, rank, seed }: Run): LowRank =>
  lowRankOf(randomFactors({ out, in: inner, rank, wide: true }, seed, 'state'));

const serve = (state: LowRank, rank: number, scale: number): ServedFactors =>
  readOut(state, { rank, scale, seed: 'run q_proj' });

/** Clients that give back what they were served, each of the version given. */
const idle = (run: Run, versionOf: (client: number) => LowRank): MatrixUpdate[] =>
  run.clients.map(({ rank, weight, scale }, k) => {
    const start = serve(versionOf(k), rank, scale);
    return { weight, start, end: { ...start, a: start.a.slice(), b: start.b.slice() } };
  });

/** Clients that moved both factors, in float32 as a tab would. */
const trained = (run: Run, versionOf: (client: number) => LowRank, ...seed: (string | number)[]): MatrixUpdate[] =>
  idle(run, versionOf).map((update, k) => {
    const step = randomFactors({ ...update.end }, run.seed, 'step', k, ...seed);
    const moved = (values: Factors['a'], by: Factors['a']) => values.map((value, i) => value + 0.05 * (by[i] ?? 0));
    return { ...update, end: { ...update.end, a: moved(update.end.a, step.a), b: moved(update.end.b, step.b) } };
  });

const reach = (clients: Run['clients'], j: number): number =>
  clients.reduce((share, { rank, weight }) => (rank > j ? share + weight : share), 0);

const whole = Number.POSITIVE_INFINITY;

/** M + Σ w·(s·B·A − S). */
const changed = (before: LowRank, updates: readonly MatrixUpdate[]): Dense =>
  sum([
    [1, denseOf(before)],
    [1, denseSum(updates.map(({ weight, end }) => ({ weight, factors: end })))],
    [-1, denseSum(updates.map(({ weight, start }) => ({ weight, factors: start as Factors })))],
  ]);

describe('rounds in which nobody trains', () => {
  it('leave p_j of σ_j with flexlora, and p_jᵗ after t rounds', () => {
    fc.assert(
      fc.property(runs(), (run) => {
        const first = stateOf(run);
        const maxRank = storedRank(run, Math.max(...run.clients.map(({ rank }) => rank)));
        let state = first;
        for (let round = 1; round <= 3; round += 1) {
          const updates = idle(run, () => state);
          const { next, report } = flexlora.mergeMatrix({ current: state, updates, maxRank });
          for (const [j, share] of report.p.entries()) expect(share).toBeCloseTo(reach(run.clients, j), 12);
          state = next;
          const law = denseOf(first, (j) => reach(run.clients, j) ** round);
          expect(distance(denseOf(state), law)).toBeLessThan(1e-6);
        }
      }),
      { examples: large },
    );
  });

  it('change nothing with flexlora-carry', () => {
    fc.assert(
      fc.property(runs(), (run) => {
        const first = stateOf(run);
        let state = first;
        for (let round = 0; round < 5; round += 1)
          state = flexloraCarry.mergeMatrix({ current: state, updates: idle(run, () => state), maxRank: whole }).next;
        expect(distance(denseOf(state), denseOf(first))).toBeLessThan(1e-12);
        expect(state.rank).toBe(first.rank);
      }),
      { examples: large },
    );
  });
});

describe('rounds in which everyone goes a share η of the way', () => {
  it('settle at σ∞ = σ*·pη/(1 − p(1 − η)) with flexlora', () => {
    fc.assert(
      fc.property(runs({ side: 14, clients: 4 }), fc.double({ min: 0.1, max: 1, noNaN: true }), (run, progress) => {
        const target = stateOf(run);
        let state = target;
        /** What is left of the distance shrinks by p(1 − η) a round, and p ≤ 1. */
        const rounds = Math.ceil(Math.log(1e-8) / Math.log(Math.max(1e-3, 1 - progress)));
        for (let round = 0; round < rounds; round += 1) {
          const updates = run.clients.map(({ rank, weight, scale }) => {
            const start = serve(state, rank, scale);
            const goal = serve(target, rank, scale);
            // Both have the target's directions, in the same order; where the state has none yet its B is 0.
            const b = Float64Array.from(start.b, (value, i) => value + progress * ((goal.b[i] ?? 0) - value));
            return { weight, end: { ...goal, b }, start: null };
          });
          state = flexlora.mergeMatrix({ current: state, updates, maxRank: whole }).next;
        }
        for (const [j, sigma] of target.sigma.entries()) {
          const p = reach(run.clients, j);
          const law = (sigma * p * progress) / (1 - p * (1 - progress));
          expect(Math.abs((state.sigma[j] ?? 0) - law)).toBeLessThan(1e-5 * (target.sigma[0] ?? 0));
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe('flexlora-carry with clients that started from earlier versions', () => {
  /** Versions that differ by training, the newest last. */
  const history = (run: Run, length: number): LowRank[] => {
    const versions = [stateOf(run)];
    while (versions.length < length) {
      const current = versions.at(-1) as LowRank;
      const updates = trained(run, () => current, versions.length);
      versions.push(flexloraCarry.mergeMatrix({ current, updates, maxRank: whole }).next);
    }
    return versions;
  };
  /** Who answers for which version: by numbers drawn. */
  const pickedFrom =
    (versions: readonly LowRank[], picks: readonly number[]) =>
    (client: number): LowRank =>
      versions[(picks[client % picks.length] ?? 0) % versions.length] as LowRank;
  const picks = fc.array(fc.nat(), { minLength: 1, maxLength: 6 });

  it('is M + Σ w·(s·B·A − S), S what each was served', () => {
    fc.assert(
      fc.property(runs(), picks, (run, drawn) => {
        const versions = history(run, 4);
        const current = versions.at(-1) as LowRank;
        const updates = trained(run, pickedFrom(versions, drawn), 'late');
        const { next } = flexloraCarry.mergeMatrix({ current, updates, maxRank: whole });
        expect(distance(denseOf(next), changed(current, updates))).toBeLessThan(1e-12);
      }),
      { numRuns: 60, examples: LARGE.map((run): [Run, number[]] => [run, [0, 3, 1, 2, 2]]) },
    );
  });

  it('changes nothing when nobody trains, whatever version each one gives back', () => {
    fc.assert(
      fc.property(runs(), picks, (run, drawn) => {
        const versions = history(run, 4);
        const settled = versions.at(-1) as LowRank;
        let state = settled;
        for (let round = 0; round < 5; round += 1) {
          const updates = idle(run, pickedFrom([...versions, state], [...drawn, round]));
          state = flexloraCarry.mergeMatrix({ current: state, updates, maxRank: whole }).next;
        }
        expect(distance(denseOf(state), denseOf(settled))).toBeLessThan(1e-12);
        expect(state.rank).toBe(settled.rank);
      }),
      { numRuns: 60 },
    );
  });

  it('counts what a stale client did and not what the others did since', () => {
    fc.assert(
      fc.property(runs(), (run) => {
        const versions = history(run, 3);
        const [oldest, , current] = versions as [LowRank, LowRank, LowRank];
        const [late, ...others] = trained(run, () => oldest, 'late');
        const updates = [late, ...idle(run, () => current).slice(1)].slice(0, 1 + others.length) as MatrixUpdate[];
        const { next } = flexloraCarry.mergeMatrix({ current, updates, maxRank: whole });
        const { weight, end, start } = late as MatrixUpdate;
        const own = sum([
          [weight, productOf(end)],
          [-weight, productOf(start as Factors)],
        ]);
        const moved = sum([
          [1, denseOf(next)],
          [-1, denseOf(current)],
        ]);
        expect(distance(moved, own)).toBeLessThan(1e-10);
      }),
      { numRuns: 60 },
    );
  });
});
