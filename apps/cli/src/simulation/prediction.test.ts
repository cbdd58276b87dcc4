import { describe, expect, it } from 'vitest';
import type { SimulatedRound } from './federation.ts';
import { idleSigmas, lawfulSigmas, lawOf, type SimulatedRun } from './lawful.ts';
import { fitLaw, predict } from './prediction.ts';

const LAW = { module: 'q_proj', progress: 0.3, target: [5, 4, 3, 2, 0], p: [1, 1, 0.2, 0.1, 0] };
const roundsOf = (way: 'replaced' | 'carried', trained: readonly boolean[]): SimulatedRound[] =>
  predict(LAW, trained, way).map((sigma, t) => ({
    round: t + 1,
    trained: trained[t] ?? false,
    trainLoss: null,
    matrices: [{ module: LAW.module, sigma, p: LAW.p, discardedTail: 0 }],
  }));
const runOf = (strategy: SimulatedRun['strategy'], way: 'replaced' | 'carried', trained: readonly boolean[]) => ({
  strategy,
  rounds: roundsOf(way, trained),
  heldOut: [],
  milliseconds: 0,
});
const TRAINED = [...new Array<boolean>(12).fill(true), false, false];

describe('the law of a simulated run', () => {
  it('is found again from a run that follows it', () => {
    const [law] = fitLaw(roundsOf('carried', TRAINED));
    expect(law?.progress).toBeCloseTo(0.3, 10);
    for (const [j, target] of LAW.target.entries()) expect(law?.target[j]).toBeCloseTo(target, 8);
  });

  it('then predicts flexlora, which it was not fitted to, and nothing of strategies without a law', () => {
    const runs = [runOf('flexlora', 'replaced', TRAINED), runOf('flexlora-carry', 'carried', TRAINED)];
    const law = lawOf(runs);
    expect(law?.fittedTo).toBe('flexlora-carry');
    const flexlora = runs[0] as SimulatedRun;
    const predicted = lawfulSigmas(law, flexlora);
    for (const [t, { matrices }] of flexlora.rounds.entries())
      for (const [j, sigma] of (matrices[0]?.sigma ?? []).entries())
        expect(predicted?.[t]?.[0]?.[j]).toBeCloseTo(sigma, 6);
    expect(lawfulSigmas(law, { ...flexlora, strategy: 'zero-pad' })).toBeNull();
    // The same law as the fitted run's would be drawn twice.
    expect(lawfulSigmas(law, { ...flexlora, strategy: 'flexlora-frozen-tail' })).toBeNull();
    expect(lawOf([flexlora])).toBeNull();
  });

  it('keeps the share p of a round in which nobody trains, from what was measured', () => {
    const run = runOf('flexlora', 'replaced', TRAINED);
    const [now, next, after] = idleSigmas(run, 11) ?? [];
    const measured = run.rounds.slice(11).map(({ matrices }) => matrices[0]?.sigma ?? []);
    for (const [t, sigmas] of [now, next, after].entries())
      for (const [j, sigma] of (sigmas?.[0] ?? []).entries()) expect(sigma).toBeCloseTo(measured[t]?.[j] ?? 0, 10);
  });
});
