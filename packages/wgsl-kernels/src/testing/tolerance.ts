// Comparison of float32 results with float64 ones. Every bound scales with what was computed and is derived where it is
// used; nothing here has a tolerance of its own.
import { at, type Numbers } from '../reference/numbers.ts';

/** Distance from 1 to the next float32: one rounding errs by at most half of it, relatively. */
export const EPSILON = 2 ** -23;

/** Below this, float32 numbers are denormal, and GPUs may flush them to zero. */
export const SMALLEST_NORMAL = 2 ** -126;

/**
 * Throws Error unless |actual − expected| ≤ bound for every element, naming the worst one. NaN is never within a bound.
 * Returns the greatest error as a share of its bound, so that a test can tell whether a bound still means something.
 */
export function expectWithin(label: string, actual: Numbers, expected: Numbers, bound: (i: number) => number): number {
  if (actual.length !== expected.length) {
    throw new Error(`${label}: ${actual.length} elements where ${expected.length} are expected.`);
  }
  let worst = { share: 0, i: -1 };
  for (let i = 0; i < expected.length; i += 1) {
    const error = Math.abs(at(actual, i) - at(expected, i));
    const allowed = bound(i) + SMALLEST_NORMAL;
    const share = Number.isFinite(error) && allowed >= 0 ? error / allowed : Number.POSITIVE_INFINITY;
    if (share > worst.share) worst = { share, i };
  }
  if (worst.share > 1) {
    const { share, i } = worst;
    throw new Error(
      `${label}[${i}] is ${at(actual, i)} where ${at(expected, i)} ± ${bound(i)} is expected (${share.toPrecision(3)} times the bound).`,
    );
  }
  return worst.share;
}
