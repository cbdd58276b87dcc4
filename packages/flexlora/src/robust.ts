// Robust aggregation: clipping of large changes (the norm bound of Sun et al., 2019, arXiv 1911.07963, at a multiple of the
// cohort's median as in FLAME, Nguyen et al., USENIX Security 2022, arXiv 2101.02281), changes that oppose the cohort, and
// outliers. Decisions from a few figures a client; nothing is taken out here, callers are told which and why.
import { MergeError } from './errors.ts';
import type { MatrixUpdate } from './spectrum.ts';
import type { Term } from './stack.ts';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

/**
 * What each change is multiplied by so that no norm exceeds `timesMedian` times the median norm; those that did not change
 * are not counted in it. Norms are ‖s·B·A − S‖ over all matrices. Throws MergeError 'weights'.
 */
export function clipFactors(norms: readonly number[], timesMedian: number): number[] {
  if (!(timesMedian > 0))
    throw new MergeError('weights', `Changes cannot be clipped to ${timesMedian} times their median.`);
  const bad = norms.findIndex((norm) => !(norm >= 0 && norm < Number.POSITIVE_INFINITY));
  if (bad >= 0) throw new MergeError('non-finite', `The norm of change ${bad + 1} is ${norms[bad]}; leave it out.`);
  const bound = timesMedian * median(norms.filter((norm) => norm > 0));
  return norms.map((norm) => (norm > bound ? bound / norm : 1));
}

/** w·(S + c·(s·B·A − S)) as terms to sum: what an update of a strategy that merges products is clipped to. */
export function clippedTerms({ weight, end, start, clip = 1 }: MatrixUpdate, name: string): Term[] {
  if (clip === 1 || start === null) return [{ weight, factors: end, name }];
  return [
    { weight: weight * clip, factors: end, name },
    { weight: weight * (1 - clip), factors: start, name: `${name}, start weights` },
  ];
}

/** Fewer changes are no cohort that one could be out of line with. */
export const LEAST_COHORT = 5;
/** Less agreement than this is none: changes of unrelated tasks come as near by chance and common words. */
const LEAST_AGREEMENT = 0.1;

export interface Opposition {
  /** Median of the cosines above zero: how far those agree who do. */
  readonly agreement: number;
  /** Cosines of this and below oppose the cohort. */
  readonly limit: number;
  readonly opposed: readonly boolean[];
}

/**
 * Which changes pull against the cohort. `cosines`: of each change with the sum of all others, each at norm 1, so that nobody
 * counts more for being large; null for no change. Opposed is who pulls back at least `strength` times as strongly as the
 * others agree; 0.75 finds changes turned around, up to four of ten. A client with a task of its own is nearly orthogonal to
 * the rest and never opposed; nor is anybody where most do not agree on a direction, or in cohorts of fewer than five.
 */
export function findOpposed(cosines: readonly (number | null)[], strength: number): Opposition {
  const known = cosines.filter((cosine) => cosine !== null);
  const agreeing = known.filter((cosine) => cosine > 0);
  const agreement = median(agreeing);
  const limit = -strength * agreement;
  const agreed = known.length >= LEAST_COHORT && 2 * agreeing.length > known.length && agreement >= LEAST_AGREEMENT;
  return { agreement, limit, opposed: cosines.map((cosine) => agreed && cosine !== null && cosine <= limit) };
}

/** A norm this many times the median, or less than its inverse, is out of line with a cohort that agrees on its size. */
const NORM_RATIO = 3;
/** Standard deviations from the median, by its absolute deviation, at which a size is no longer one of the cohort. */
const FAR = 3;
/** Median absolute deviation of a normal distribution, as a share of its standard deviation. */
const MAD_OF_NORMAL = 0.6745;
/** Of {@link findOpposed}: well below what an honest task that undoes a part of the others' would be rejected at. */
const NOTED_OPPOSITION = 0.25;

/**
 * Changes out of line with the cohort, in words, null for the others: a norm three times the median and three deviations away
 * (of logarithms), or a direction against the others (or the mean) a quarter as strong as these agree. For people to look at:
 * an outlier may be the one client who has something else to tell.
 */
export function findOutliers(
  changes: readonly { readonly norm: number; readonly cosine: number | null }[],
): (string | null)[] {
  const sizes = changes.flatMap(({ norm }) => (norm > 0 ? [Math.log(norm)] : []));
  const size = median(sizes);
  const deviation = median(sizes.map((each) => Math.abs(each - size))) / MAD_OF_NORMAL;
  const far = Math.max(Math.log(NORM_RATIO), FAR * deviation);
  const { agreement, opposed } = findOpposed(
    changes.map(({ cosine }) => cosine),
    NOTED_OPPOSITION,
  );
  return changes.map(({ norm, cosine }, i) => {
    const reasons: string[] = [];
    const away = norm > 0 ? Math.log(norm) - size : 0;
    if (sizes.length >= LEAST_COHORT && Math.abs(away) > far)
      reasons.push(`norm: its change is ${Math.exp(away).toPrecision(2)} times as large as the median`);
    if (opposed[i] && cosine !== null)
      reasons.push(
        `direction: its change has cosine ${cosine.toFixed(2)} with the others, where those who agree have ${agreement.toFixed(2)}`,
      );
    return reasons.length === 0 ? null : reasons.join('; ');
  });
}
