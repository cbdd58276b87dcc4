// Whole rounds beside the same experiment in float64 PyTorch (packages/flexlora/reference): on this side server, sockets,
// merge process, sessions and WGSL kernels, on the other a decoder and dense sums written out. Nothing is shared but tokens.
import { beforeAll, describe, expect, it } from 'vitest';
import { CLIENTS, inputLines, TRAINING } from './definition.ts';
import { differences, type Golden, INPUTS, largest, readGolden } from './golden.ts';
import { type PlayedRound, play } from './play.ts';

const LOSS_TOLERANCE = 1e-3;
/** Of a merged matrix, and of its spectrum. */
const MERGE_TOLERANCE = 1e-4;

it('the reference was given what our data pipeline makes of the rows', async () => {
  await expect(await inputLines()).toMatchFileSnapshot(INPUTS);
});

const OTHER = { flexlora: 'flexlora-carry', 'flexlora-carry': 'flexlora' } as const;

describe.each(['flexlora', 'flexlora-carry'] as const)('three rounds of %s', (strategy) => {
  let golden: Golden;
  let rounds: PlayedRound[];
  beforeAll(async () => {
    golden = await readGolden(strategy);
    rounds = await play(strategy);
  });
  const compare = (played: readonly PlayedRound[], with_: Golden) => {
    expect(played).toHaveLength(TRAINING.rounds);
    expect(with_.rounds).toHaveLength(TRAINING.rounds);
    return with_.rounds.map((round, i) => {
      const { losses, matrices } = differences(played[i] as PlayedRound, round);
      expect(losses).toHaveLength(CLIENTS.length * TRAINING.localSteps);
      expect(matrices).toHaveLength(35);
      return {
        loss: largest(losses),
        delta: largest(matrices.map(({ delta }) => delta)),
        sigma: largest(matrices.map(({ sigma }) => sigma)),
        matrices,
      };
    });
  };

  it('are of mixed ranks and of shares that differ, with every gradient clipped', () => {
    for (const [i, { record }] of rounds.entries()) {
      const clients = golden.rounds[i]?.clients ?? [];
      expect(record).toMatchObject({ round: i + 1, outcome: 'committed' });
      for (const { name, rank, task, targetTokens, weight, gradientNorms } of clients) {
        const contribution = record.contributions.find((each) => each.name === name);
        expect(contribution).toMatchObject({ rank, task, targetTokens, startVersion: i, quarantined: null });
        expect(contribution?.weight).toBeCloseTo(weight, 12);
        expect(Math.min(...gradientNorms)).toBeGreaterThan(TRAINING.maxGradNorm);
      }
      expect(clients.map(({ rank }) => rank)).toEqual([2, 4, 8, 16]);
      expect(new Set(clients.map(({ targetTokens }) => targetTokens)).size).toBe(CLIENTS.length);
    }
  });

  it('give the golden losses and merged updates', () => {
    for (const { loss, delta, sigma } of compare(rounds, golden)) {
      expect(loss).toBeLessThan(LOSS_TOLERANCE);
      expect(delta).toBeLessThan(MERGE_TOLERANCE);
      expect(sigma).toBeLessThan(MERGE_TOLERANCE);
    }
    // Differences are far below what any client's truncation could have turned on.
    expect(golden.nearestSingularValues).toBeGreaterThan(50 * MERGE_TOLERANCE);
  });

  it('are estimated from sketches as they are', () => {
    const whole = compare(rounds, golden).flatMap(({ matrices }) =>
      matrices.flatMap(({ delta, exact }) => (exact === null ? [] : [delta / exact])),
    );
    expect(whole).toHaveLength(7);
    for (const ratio of whole) expect(Math.abs(ratio - 1)).toBeLessThan(0.4);
  });

  it('are not what the other strategy gives', async () => {
    const [first, second, third] = compare(rounds, await readGolden(OTHER[strategy]));
    // Without a state both are the mean of what was trained.
    expect(first?.delta).toBeLessThan(MERGE_TOLERANCE);
    expect(second?.loss).toBeLessThan(LOSS_TOLERANCE);
    expect(second?.delta).toBeGreaterThan(100 * MERGE_TOLERANCE);
    expect(third?.loss).toBeGreaterThan(10 * LOSS_TOLERANCE);
    expect(third?.delta).toBeGreaterThan(100 * MERGE_TOLERANCE);
  });

  it('would be seen to differ in one matrix or one loss', () => {
    const [round] = rounds;
    const module = 'model.layers.3.self_attn.k_proj';
    const changed = (scale: number, shift: number): PlayedRound[] => {
      const { losses, deltas, record } = round as PlayedRound;
      const delta = deltas.get(module)?.map((value) => value * scale) ?? new Float64Array();
      const [name, own] = [...losses][2] ?? ['', []];
      const moved = own.map((loss, step) => (step === 3 ? loss * shift : loss));
      const one = {
        record,
        deltas: new Map([...deltas, [module, delta]]),
        losses: new Map([...losses, [name, moved]]),
      };
      return [one, ...rounds.slice(1)];
    };
    expect(compare(changed(1 + 2 * MERGE_TOLERANCE, 1), golden)[0]?.delta).toBeGreaterThan(MERGE_TOLERANCE);
    expect(compare(changed(1, 1 + 2 * LOSS_TOLERANCE), golden)[0]?.loss).toBeGreaterThan(LOSS_TOLERANCE);
    expect(compare([{ ...(round as PlayedRound), deltas: new Map() }, ...rounds.slice(1)], golden)[0]?.delta).toBeNaN();
  });
});
