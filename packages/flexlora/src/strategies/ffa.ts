// FFA-LoRA (Sun et al., ICLR 2024, arXiv 2403.12313): A stays as it was drawn and only B is trained, so that Σ w·s·B·A is the
// average of B times the one A: exact, at O((out + in)·r_max). With mixed ranks, clients have the first rows of A, and shorter
// B count as zeros beyond. Half the factors train, so more rank or more steps are needed; without training columns that few
// clients reach keep the share p_j, as in flexlora.
import { MergeError } from '../errors.ts';
import { type Factors, inHand } from '../types.ts';
import { averageFactors, endsOf, mergedFactors } from './averages.ts';
import { checkMerge, type Strategy } from './strategy.ts';

/** With one A the clipped change has factors: B₀ + c·(B − B₀). */
function clippedB(end: Factors, start: Factors | null, clip = 1): Factors {
  if (clip === 1 || start === null) return end;
  const began = start.b;
  const b = Float64Array.from(end.b, (value, i) => clip * value + (1 - clip) * (began[i] ?? Number.NaN));
  return { ...inHand(end), b };
}

export const ffa: Strategy<Factors> = {
  name: 'ffa',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  clips: true,
  mixedRanks: true,
  trains: 'B',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(ffa, merge);
    const { updates, name = 'the matrix' } = merge;
    const [ends, weights] = endsOf(merge);
    const factors = ends.map((end, i) => clippedB(end, updates[i]?.start ?? null, updates[i]?.clip));
    const longest = factors.reduce((most, each) => (each.rank > most.rank ? each : most));
    const drawn = longest.a;
    for (const [i, { a }] of factors.entries()) {
      const { start = null, clip = 1 } = updates[i] ?? {};
      const began = start !== null && clip < 1 ? start.a : a;
      const differs = a.findIndex((value, k) => value !== drawn[k] || value !== began[k]);
      if (differs < 0) continue;
      const called = `${updates[i]?.name ?? `update ${i + 1}`} of ${name}`;
      throw new MergeError(
        'strategy',
        `ffa keeps A as it was drawn, and ${called} has another A at element ${differs}.`,
      );
    }
    return mergedFactors(merge, { ...averageFactors(factors, weights), a: Float64Array.from(drawn) });
  },
};
