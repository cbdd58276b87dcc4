// FlexLoRA as published (Bai et al., NeurIPS 2024, arXiv 2402.11505): M = Σ w·s·B·A. Without training it shrinks: direction
// j keeps p_j of its singular value, the weight share of clients whose rank reaches it. Updates that started from an older
// state would bring that state back, so it is for synchronous rounds only.
import { clippedTerms } from '../robust.ts';
import { matrixReport } from '../spectrum.ts';
import { sumOfProducts } from '../sum.ts';
import type { LowRank } from '../types.ts';
import { checkMerge, type Strategy } from './strategy.ts';

export const flexlora: Strategy<LowRank> = {
  name: 'flexlora',
  needsStart: false,
  synchronousOnly: true,
  mergesChanges: false,
  clips: true,
  mixedRanks: true,
  trains: 'both',
  side: 'none',
  mergeMatrix(merge) {
    checkMerge(flexlora, merge);
    const { updates, maxRank, name = 'the matrix' } = merge;
    const terms = updates.flatMap((update, i) =>
      clippedTerms(update, `${update.name ?? `update ${i + 1}`} of ${name}`),
    );
    const { value, discarded } = sumOfProducts(terms, { maxRank, seed: name });
    return { next: value, report: matrixReport(value, discarded, updates) };
  },
};
