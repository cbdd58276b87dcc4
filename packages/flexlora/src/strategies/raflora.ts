// raFLoRA (Wu et al., 2026, arXiv 2602.13486): FlexLoRA by partitions of the rank. Between two ranks of the cohort, rows of A
// and columns of B are averaged as products over the clients that have them, their shares made to sum to 1:
// M = Σ_h Σ_{k: r_k ≥ h} (w_k / p_h)·s·B_k[:, h]·A_k[h, :]. Costs what flexlora costs. Directions of few clients do not shrink, but
// their noise is not averaged either; and which direction is row h of a client depends on the gauge of its factors.

import { clippedTerms } from '../robust.ts';
import { matrixReport } from '../spectrum.ts';
import type { Term } from '../stack.ts';
import { sumOfProducts } from '../sum.ts';
import type { Factors, LowRank } from '../types.ts';
import { checkMerge, type Strategy } from './strategy.ts';

/** Rows [from, to) of A and columns of B. */
function partition(factors: Factors, from: number, to: number): Factors {
  const { out, in: inner, rank, scale, a, b } = factors;
  const width = to - from;
  const part = new Float64Array(out * width);
  for (let i = 0; i < out; i += 1) part.set(b.subarray(i * rank + from, i * rank + to), i * width);
  return { out, in: inner, rank: width, scale, a: a.slice(from * inner, to * inner), b: part };
}

export const raflora: Strategy<LowRank> = {
  name: 'raflora',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  clips: true,
  mixedRanks: true,
  trains: 'both',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(raflora, merge);
    const { updates, maxRank, name = 'the matrix' } = merge;
    const ranks = [...new Set(updates.map(({ end }) => end.rank))].sort((a, b) => a - b);
    function* terms(): Generator<Term, void, undefined> {
      for (const [h, to] of ranks.entries()) {
        const reaching = updates.filter(({ end }) => end.rank >= to);
        const share = reaching.reduce((sum, { weight }) => sum + weight, 0);
        // Clients of weight 0 alone say nothing.
        if (share === 0) continue;
        const part = (factors: Factors): Factors => partition(factors, ranks[h - 1] ?? 0, to);
        for (const [i, { weight, end, start, clip = 1, name: client }] of reaching.entries()) {
          yield* clippedTerms(
            { weight: weight / share, end: part(end), start: start && clip < 1 ? part(start) : null, clip },
            `${client ?? `update ${i + 1}`} of ${name}`,
          );
        }
      }
    }
    const { value, discarded } = sumOfProducts(terms(), { maxRank, seed: name });
    return { next: value, report: matrixReport(value, discarded, updates) };
  },
};
