// Whole rounds beside the same experiment in float64 PyTorch (packages/flexlora/reference): on this side server, sockets,
// merge process, sessions and WGSL kernels, on the other a decoder and dense sums written out.
import { beforeAll, describe, expect, it } from 'vitest';
import { CLIENTS, inputLines, TRAINING } from './definition.ts';
import { differences, type Golden, type GoldenRound, INPUTS, largest, readGolden } from './golden.ts';
import { type PlayedRound, play } from './play.ts';

const LOSS_TOLERANCE = 1e-3;
/** Of a merged matrix, and of its spectrum. */
const MERGE_TOLERANCE = 1e-4;

/** The largest differences of a round, of all there is to compare. */
function compare(played: PlayedRound, golden: GoldenRound) {
  const { losses, matrices } = differences(played, golden);
  expect(losses).toHaveLength(CLIENTS.length * TRAINING.localSteps);
  expect(matrices).toHaveLength(35);
  return {
    loss: largest(losses),
    delta: largest(matrices.map(({ delta }) => delta)),
    sigma: largest(matrices.map(({ sigma }) => sigma)),
    matrices,
  };
}

it('the reference was given what our data pipeline makes of the rows', async () => {
  await expect(await inputLines()).toMatchFileSnapshot(INPUTS);
});

describe.each([
  { strategy: 'flexlora', other: 'flexlora-carry', alike: true },
  { strategy: 'flexlora-carry', other: 'flexlora', alike: true },
  { strategy: 'flexlora-frozen-tail', other: 'flexlora-carry', alike: false },
] as const)('three rounds of $strategy', ({ strategy, other, alike }) => {
  let golden: Golden;
  let played: (readonly [PlayedRound, GoldenRound])[];

  beforeAll(async () => {
    golden = await readGolden(strategy);
    const rounds = await play(strategy);
    expect(rounds).toHaveLength(TRAINING.rounds);
    expect(golden.rounds).toHaveLength(TRAINING.rounds);
    played = rounds.map((round, i) => [round, golden.rounds[i] as GoldenRound]);
  });

  it('are of mixed ranks and of unequal shares, with every gradient clipped', () => {
    for (const [i, [{ record }, { clients }]] of played.entries()) {
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

  it('give the golden losses, merged updates and spectra', () => {
    for (const [round, expected] of played) {
      const { loss, delta, sigma } = compare(round, expected);
      expect(loss).toBeLessThan(LOSS_TOLERANCE);
      expect(delta).toBeLessThan(MERGE_TOLERANCE);
      expect(sigma).toBeLessThan(MERGE_TOLERANCE);
    }
    // No client's truncation was so near to undecided that a difference within the tolerance could turn it.
    expect(golden.nearestSingularValues).toBeGreaterThan(50 * MERGE_TOLERANCE);
  });

  it('are as far from golden as their sketches say', () => {
    const ratios = played.flatMap(([round, expected]) =>
      compare(round, expected).matrices.flatMap(({ delta, exact }) => (exact === null ? [] : [delta / exact])),
    );
    expect(ratios).toHaveLength(7);
    // Of 128 sums: a standard deviation of 6 %.
    for (const ratio of ratios) expect(Math.abs(ratio - 1)).toBeLessThan(0.4);
  });

  it('are not what the other strategy gives', async () => {
    const { rounds } = await readGolden(other);
    const [first, second, third] = played.map(([round], i) => compare(round, rounds[i] as GoldenRound));
    // Before there is a state all three merge the mean of what was trained. Clients of two of them start round 2 alike.
    expect(first?.delta).toBeLessThan(MERGE_TOLERANCE);
    if (alike) expect(second?.loss).toBeLessThan(LOSS_TOLERANCE);
    else expect(second?.loss).toBeGreaterThan(10 * LOSS_TOLERANCE);
    expect(second?.delta).toBeGreaterThan(100 * MERGE_TOLERANCE);
    expect(third?.loss).toBeGreaterThan(10 * LOSS_TOLERANCE);
    expect(third?.delta).toBeGreaterThan(100 * MERGE_TOLERANCE);
  });

  it('would be seen to differ in one matrix, one loss, or by one that is missing', () => {
    const [round, expected] = played[2] as readonly [PlayedRound, GoldenRound];
    const module = 'model.layers.3.self_attn.k_proj';
    const delta = round.deltas.get(module)?.map((value) => value * (1 + 2 * MERGE_TOLERANCE)) ?? new Float64Array();
    const scaled = { ...round, deltas: new Map([...round.deltas, [module, delta]]) };
    expect(compare(scaled, expected).delta).toBeGreaterThan(MERGE_TOLERANCE);
    const losses = round.losses.get('cy')?.map((loss, step) => loss * (step === 3 ? 1 + 2 * LOSS_TOLERANCE : 1)) ?? [];
    const shifted = { ...round, losses: new Map([...round.losses, ['cy', losses]]) };
    expect(compare(shifted, expected).loss).toBeGreaterThan(LOSS_TOLERANCE);
    const lacking = { ...round, deltas: new Map([...round.deltas].filter(([name]) => name !== module)) };
    expect(compare(lacking, expected).delta).toBeNaN();
  });
});
