// Cohorts as real ones are: every client takes a step of LoRA's own gradients from the weights it was served, on the
// gradient of its task and noise of its own. Who attacks does the same and then turns the step around.
import { describe, expect, it } from 'vitest';
import { agreementOf, cosinesWithOthers, sumAgreements } from './agreement.ts';
import { readOut } from './read-out.ts';
import { clipFactors, findOpposed, findOutliers } from './robust.ts';
import { changeParts, type MatrixUpdate, normOfSum } from './spectrum.ts';
import { type MatrixMerge, STRATEGY_NAMES, strategyByName } from './strategies/index.ts';
import { lowRankOf } from './sum.ts';
import {
  type Dense,
  denseOfState,
  distance,
  multiply,
  norm,
  productOf,
  randomDense,
  randomFactors,
  rowsOf,
  sum,
  transposed,
} from './testing/dense.ts';
import type { Factors } from './types.ts';

const SHAPES = [
  { out: 24, in: 16 },
  { out: 16, in: 24 },
  { out: 20, in: 20 },
];
const RANKS = [2, 4, 8];

/** A gradient of norm 1 with a few strong directions, as a task's is. */
function taskGradient(task: string, m: number): Dense {
  const { out, in: columns } = SHAPES[m] as (typeof SHAPES)[number];
  const product = multiply(randomDense(out, 3, 'task', task, m, 'left'), randomDense(3, columns, 'task', task, m));
  return sum([[1 / norm(product), product]]);
}

/** One step down `gradient` from `start`: B −= η·s·G·Aᵀ, A −= η·s·Bᵀ·G. */
function stepped(start: Factors, gradient: Dense, rate: number): Factors {
  const { scale, rank, out, in: columns } = start;
  const [a, b] = [rowsOf(start.a, columns), rowsOf(start.b, rank)];
  const ofB = multiply(gradient, transposed(a));
  const ofA = multiply(transposed(b), gradient);
  const less = (values: Factors['a'], step: Dense) =>
    Float64Array.from(values, (value, i) => value - rate * scale * (step.data[i] ?? Number.NaN));
  return { out, in: columns, rank, scale, b: less(start.b, ofB), a: less(start.a, ofA) };
}

interface Client {
  /** What the client trains on, as shares of tasks' gradients. */
  readonly tasks: Readonly<Record<string, number>>;
  /** Norm of its own noise beside the task's gradient of 1. */
  readonly noise: number;
  /** What it multiplies its step by before it answers. */
  readonly turned?: number;
}

/** Updates by client and matrix; the state they start from has been trained already. */
const cohort = (clients: readonly Client[], seed: string): MatrixUpdate[][] =>
  clients.map(({ tasks, noise, turned = 1 }, i) =>
    SHAPES.map((shape, m) => {
      const state = lowRankOf(randomFactors({ ...shape, rank: 6 }, 'state', m));
      const start = readOut(state, { rank: RANKS[i % RANKS.length] ?? 1, scale: 2, seed: 'start' });
      const own = randomDense(shape.out, shape.in, 'noise', seed, i, m);
      const gradient = sum([
        ...Object.entries(tasks).map(([task, share]) => [share, taskGradient(task, m)] as const),
        [noise / norm(own), own] as const,
      ]);
      return { weight: 1 / clients.length, start, end: stepped(start, gradient, 0.05 * turned) };
    }),
  );

/** Who is opposed, as the server finds it: every change at norm 1, cosines over all matrices with the others. */
function opposedOf(updates: readonly MatrixUpdate[][], strength = 0.75) {
  const over = (weights: readonly number[]) =>
    sumAgreements(
      SHAPES.map((_, m) =>
        agreementOf(updates.map((each, i) => ({ ...(each[m] as MatrixUpdate), weight: weights[i] ?? 0 }))),
      ),
    );
  const norms = over(updates.map(() => 0)).own.map(Math.sqrt);
  const units = norms.map((each) => (each > 0 ? 1 / each : 0));
  const cosines = cosinesWithOthers(over(units), units);
  return { ...findOpposed(cosines, strength), cosines, norms };
}

const named = (flags: readonly boolean[]) => flags.flatMap((flag, i) => (flag ? [i] : []));
const honest = (count: number, noise = 1): Client[] =>
  Array.from({ length: count }, () => ({ tasks: { one: 1 }, noise }));
const SEEDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

describe('changes that oppose the cohort', () => {
  it.each(SEEDS)('are not those of an honest minority, one in ten with another task (%s)', (seed) => {
    for (const noise of [0.3, 1, 2]) {
      const other: Client = { tasks: { two: 1 }, noise };
      expect(named(opposedOf(cohort([...honest(9, noise), other], seed)).opposed)).toEqual([]);
      expect(named(opposedOf(cohort([...honest(9, noise), other], seed), 0.5).opposed)).toEqual([]);
    }
  });

  it.each(SEEDS)('are not those of a minority whose task partly undoes the others’ (%s)', (seed) => {
    // Its gradient has cosine −0.3 with the others' task.
    const against: Client = { tasks: { two: 0.95, one: -0.3 }, noise: 1 };
    const { opposed, cosines } = opposedOf(cohort([...honest(9), against], seed));
    expect(cosines[9]).toBeLessThan(0);
    expect(named(opposed)).toEqual([]);
  });

  it.each(SEEDS)('are not those of a cohort of ten tasks (%s)', (seed) => {
    const many = Array.from({ length: 10 }, (_, i): Client => ({ tasks: { [`task ${i}`]: 1 }, noise: 0.5 }));
    expect(named(opposedOf(cohort(many, seed)).opposed)).toEqual([]);
    // Nor when all tasks have a little in common.
    const common = many.map(({ tasks, noise }): Client => ({ tasks: { ...tasks, one: 0.4 }, noise }));
    expect(named(opposedOf(cohort(common, seed)).opposed)).toEqual([]);
  });

  it.each(SEEDS)('are those turned around, at any size, up to four of ten (%s)', (seed) => {
    for (const turned of [-1, -8, -0.1]) {
      for (const attackers of [1, 2, 4]) {
        const bad = honest(attackers).map((client): Client => ({ ...client, turned }));
        const { opposed } = opposedOf(cohort([...honest(10 - attackers), ...bad], seed));
        expect(named(opposed)).toEqual(bad.map((_, i) => 10 - attackers + i));
      }
    }
  });

  it('are found where the cohort has several tasks', () => {
    // Cosines of updates trained on the demo’s model (docs/strategies.md): six, three and one of three tasks, the first of
    // each turned around. Turned around, a task that few have is no stronger than an honest opposite.
    const trained = [-0.7, 0.78, 0.74, 0.73, 0.74, 0.73, -0.35, 0.05, 0.05, -0.14];
    expect(named(findOpposed(trained, 0.75).opposed)).toEqual([0]);
    const noted = findOutliers(trained.map((cosine) => ({ norm: 3, cosine })));
    expect(named(noted.map((reason) => reason !== null))).toEqual([0, 6]);
    // The same without anybody turned around.
    const honestly = [0.68, 0.73, 0.71, 0.73, 0.73, 0.69, 0.44, 0.43, 0.43, 0.24];
    expect(findOutliers(honestly.map((cosine) => ({ norm: 3, cosine })))).toEqual(honestly.map(() => null));
  });

  it('are told apart from the honest minority of the same round', () => {
    for (const seed of SEEDS) {
      const clients: Client[] = [
        ...honest(8),
        { tasks: { two: 1 }, noise: 1 },
        { tasks: { one: 1 }, noise: 1, turned: -3 },
      ];
      expect(named(opposedOf(cohort(clients, seed)).opposed)).toEqual([9]);
    }
  });

  it('are not looked for in small cohorts, where nobody agrees, or among those who did nothing', () => {
    expect(findOpposed([0.5, 0.5, 0.5, -0.9], 1).opposed).toEqual([false, false, false, false]);
    expect(named(findOpposed([-0.2, -0.3, -0.1, -0.9, 0.1], 1).opposed)).toEqual([]);
    expect(named(findOpposed([0.5, 0.5, 0.5, null, 0.5, -0.9], 1).opposed)).toEqual([5]);
    expect(named(findOpposed([0.05, 0.04, 0.05, 0.06, 0.05, -0.06], 1).opposed)).toEqual([]);
    expect(findOpposed([], 1).opposed).toEqual([]);
  });
});

describe('clipFactors', () => {
  it('brings norms to a multiple of the median of those that changed', () => {
    expect(clipFactors([1, 2, 3, 30, 0], 2)).toEqual([1, 1, 1, expect.closeTo(5 / 30, 15), 1]);
    expect(clipFactors([0, 0, 0], 2)).toEqual([1, 1, 1]);
    expect(clipFactors([], 2)).toEqual([]);
    expect(() => clipFactors([1], 0)).toThrow(/clipped to 0 times/);
    expect(() => clipFactors([1, Number.NaN], 2)).toThrow(expect.objectContaining({ code: 'non-finite' }));
  });
});

describe('a merge of clipped changes', () => {
  const shape = { out: 24, in: 16 };
  const state = lowRankOf(randomFactors({ ...shape, rank: 4 }, 'clip state'));
  const weights = [0.5, 0.3, 0.2];
  const clips = [1, 0.25, 0.6];
  const updates = weights.map((weight, i): MatrixUpdate => {
    const rank = RANKS[i] ?? 1;
    const start = readOut(state, { rank, scale: 2, seed: 'start' });
    return { weight, start, end: randomFactors({ ...shape, rank }, 'clip', i), clip: clips[i] ?? 1, name: `tab-${i}` };
  });
  const merge: MatrixMerge = { current: state, updates, maxRank: 16, name: 'q_proj' };
  const served = (i: number) => productOf(updates[i]?.start as Factors);
  const trained = (i: number) => productOf(updates[i]?.end as Factors);
  /** S + c·(s·B·A − S), dense. */
  const clipped = (i: number) =>
    sum([
      [clips[i] ?? 1, trained(i)],
      [1 - (clips[i] ?? 1), served(i)],
    ]);

  it('has S + c·(s·B·A − S) where products are merged', () => {
    const { next } = strategyByName('flexlora').mergeMatrix(merge);
    expect(distance(denseOfState(next), sum(weights.map((weight, i) => [weight, clipped(i)])))).toBeLessThan(1e-12);
  });

  it('has c·(s·B·A − S) where changes are', () => {
    const { next } = strategyByName('flexlora-carry').mergeMatrix(merge);
    const changes = weights.flatMap((weight, i) => [[weight, clipped(i)] as const, [-weight, served(i)] as const]);
    expect(distance(denseOfState(next), sum([[1, denseOfState(state)], ...changes]))).toBeLessThan(1e-12);
  });

  it('has it in every partition of raflora, as for one rank in flexlora', () => {
    const alike = updates.map((update, i): MatrixUpdate => {
      const start = readOut(state, { rank: 4, scale: 2, seed: 'start' });
      return { ...update, start, end: randomFactors({ ...shape, rank: 4 }, 'clip', i) };
    });
    const [one, other] = ['raflora', 'flexlora'].map((name) =>
      denseOfState(strategyByName(name).mergeMatrix({ ...merge, updates: alike }).next),
    ) as [Dense, Dense];
    expect(distance(one, other)).toBeLessThan(1e-12);
    const bare = alike.map(({ clip: _, ...update }) => update);
    expect(
      distance(denseOfState(strategyByName('raflora').mergeMatrix({ ...merge, updates: bare }).next), one),
    ).toBeGreaterThan(0.1);
  });

  it('has it in ffa, where one A makes B₀ + c·(B − B₀) of it', () => {
    const frozen = updates.map((update): MatrixUpdate => {
      const a = randomFactors({ ...shape, rank: 8 }, 'drawn').a.slice(0, update.end.rank * shape.in);
      return { ...update, end: { ...update.end, a }, start: { ...(update.start as Factors), a } };
    });
    const { next } = strategyByName('ffa').mergeMatrix({ ...merge, updates: frozen });
    const expected = sum(
      frozen.flatMap(({ weight, end, start, clip = 1 }) => [
        [weight * clip, productOf(end)] as const,
        [weight * (1 - clip), productOf(start as Factors)] as const,
      ]),
    );
    expect(distance(denseOfState(next), expected)).toBeLessThan(1e-12);
    const otherStart = frozen.map((update, i) =>
      i === 1 ? { ...update, start: updates[1]?.start as Factors } : update,
    );
    expect(() => strategyByName('ffa').mergeMatrix({ ...merge, updates: otherStart })).toThrow(
      /tab-1 of q_proj has another A/,
    );
  });

  it('is refused by name where factors are averaged, and without a start', () => {
    for (const name of STRATEGY_NAMES) {
      const strategy = strategyByName(name);
      if (strategy.clips) continue;
      const alike = [0, 1, 2]
        .map(() => updates[0] as MatrixUpdate)
        .map((update, i) => ({ ...update, weight: weights[i] ?? 0, clip: 0.5 }));
      expect(() => strategy.mergeMatrix({ ...merge, updates: alike })).toThrow(
        new RegExp(`tab-0 of q_proj is clipped, and ${name} averages factors`),
      );
    }
    expect(STRATEGY_NAMES.filter((name) => !strategyByName(name).clips)).toEqual([
      'zero-pad',
      'hetlora',
      'fedit',
      'slora',
    ]);
    const flexlora = (changed: Partial<MatrixUpdate>) => () =>
      strategyByName('flexlora').mergeMatrix({
        ...merge,
        updates: updates.map((update, i) => (i === 1 ? { ...update, ...changed } : update)),
      });
    expect(flexlora({ start: null })).toThrow(/tab-1 of q_proj needs the weights it started from/);
    expect(flexlora({ clip: 0 })).toThrow(/multiplied by 0; clipping is by a factor in \(0, 1\]/);
    expect(flexlora({ start: updates[2]?.start ?? null })).toThrow(/started at rank 8 and scale 2 and ended at 4/);
  });

  it('bounds what one client can do to the mean', () => {
    const clients = cohort([...honest(9), { tasks: { bad: 1 }, noise: 0, turned: 500 }], 'large');
    const [matrix] = [0].map((m) => clients.map((each) => each[m] as MatrixUpdate));
    const norms = (matrix ?? []).map((update) => normOfSum(changeParts({ ...update, weight: 1 })));
    const factors = clipFactors(norms, 2);
    const kept = (matrix ?? []).map((update, i) => ({ ...update, clip: factors[i] ?? 1 }));
    const meanOf = (each: readonly MatrixUpdate[]) => Math.sqrt(agreementOf(each).sum);
    expect(meanOf(matrix ?? [])).toBeGreaterThan(5 * Math.max(...norms.slice(0, 9)));
    expect(meanOf(kept)).toBeLessThan(2 * Math.max(...norms.slice(0, 9)));
  });
});

describe('findOutliers', () => {
  const usual = [1, 1.2, 0.9, 1.1, 1, 0.8].map((size, i) => ({ norm: size, cosine: 0.4 + i / 50 }));

  it('names who is out of line and why', () => {
    const found = findOutliers([
      ...usual,
      { norm: 6, cosine: 0.4 },
      { norm: 1, cosine: -0.2 },
      { norm: 0, cosine: null },
    ]);
    expect(found.slice(0, 6)).toEqual([null, null, null, null, null, null]);
    expect(found[6]).toMatch(/^norm: its change is 6(\.0)? times as large as the median$/);
    expect(found[7]).toMatch(
      /^direction: its change has cosine -0\.20 with the others, where those who agree have 0\.4\d$/,
    );
    expect(found[8]).toBeNull();
  });

  it('leaves a cohort that differs alone, and one too small to have a middle', () => {
    expect(findOutliers(usual)).toEqual(usual.map(() => null));
    const wide = [0.2, 0.5, 1, 2, 5, 9].map((size, i) => ({ norm: size, cosine: i / 10 - 0.2 }));
    expect(findOutliers(wide)).toEqual(wide.map(() => null));
    expect(
      findOutliers([
        { norm: 1, cosine: 0.5 },
        { norm: 1, cosine: 0.5 },
        { norm: 90, cosine: -1 },
      ]),
    ).toEqual([null, null, null]);
  });
});
