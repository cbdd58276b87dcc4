// Roots of the secular equation 1 + Σ z_k² / (d_k² − ω²) = 0: the singular values of an arrow matrix, with z in its first row
// and d below on the diagonal (Gu and Eisenstat, "A divide-and-conquer algorithm for the bidiagonal SVD", 1995).

import { MergeError } from '../errors.ts';

/** Steps after which a bracket of floats has closed, even by halving it every third time. */
const MAX_STEPS = 400;

export interface Roots {
  /** ω_i, ascending: d_i < ω_i < d_{i+1}. */
  readonly omega: Float64Array;
  /** differences[i · n + k] = d_k² − ω_i², each to a few ulps. */
  readonly differences: Float64Array;
}

/**
 * All roots for d ascending with d_0 = 0 and distinct, z without zeros; at least one of them. Throws MergeError
 * 'no-convergence'.
 */
export function secularRoots(d: Float64Array, z: Float64Array): Roots {
  const n = d.length;
  const omega = new Float64Array(n);
  const differences = new Float64Array(n * n);
  const squares = z.map((value) => value * value);
  const whole = squares.reduce((sum, value) => sum + value, 0);
  for (let i = 0; i < n; i += 1) {
    const { origin, offset } = rootOf(d, squares, whole, i);
    const base = d[origin] as number;
    omega[i] = base + offset;
    for (let k = 0; k < n; k += 1) {
      const dk = d[k] as number;
      differences[i * n + k] = (dk - base - offset) * (dk + base + offset);
    }
  }
  return { omega, differences };
}

/** Root i as a pole and what lies between: near a pole only the difference has the digits. */
function rootOf(d: Float64Array, squares: Float64Array, whole: number, i: number): { origin: number; offset: number } {
  const n = d.length;
  const last = i === n - 1;
  const lowPole = d[i] as number;
  // The last root has no pole above it, but lies below √(d² + ‖z‖²), of which only the part beyond d has the digits; wider by
  // its rounding.
  const beyond = (whole / (lowPole + Math.sqrt(lowPole * lowPole + whole))) * (1 + 8 * Number.EPSILON);
  const highPole = last ? lowPole + beyond : (d[i + 1] as number);
  const middle = (last ? beyond : highPole - lowPole) / 2;
  let f = 0;
  let slopeLow = 0;
  let slopeHigh = 0;
  let size = 0;
  let origin = i;
  /** f at d[origin] + offset, with its slopes in ω² on both sides of the root and the size of its terms. */
  const evaluate = (offset: number): void => {
    const base = d[origin] as number;
    f = 1;
    slopeLow = 0;
    slopeHigh = 0;
    size = 1;
    for (let k = 0; k < n; k += 1) {
      const dk = d[k] as number;
      const difference = (dk - base - offset) * (dk + base + offset);
      const term = (squares[k] as number) / difference;
      f += term;
      size += Math.abs(term);
      if (k <= i) slopeLow += term / difference;
      else slopeHigh += term / difference;
    }
  };
  evaluate(middle);
  let [low, high] = [0, middle];
  if (last) high = beyond;
  else if (f < 0) {
    // The root lies in the upper half: it is measured from the pole above.
    origin = i + 1;
    low = -middle;
    high = 0;
  }
  const base = d[origin] as number;
  let offset = firstGuess();
  if (!(offset > low && offset < high)) offset = (low + high) / 2;
  for (let step = 0; step < MAX_STEPS; step += 1) {
    evaluate(offset);
    if (!Number.isFinite(f)) break;
    if (Math.abs(f) <= Number.EPSILON * size) return { origin, offset };
    if (f < 0) low = offset;
    else high = offset;
    const square = nextSquareStep();
    const omega = base + offset;
    let next = offset + square / (omega + Math.sqrt(Math.max(0, omega * omega + square)));
    // What leaves the bracket, or is the third in a row, halves it.
    if (!(next > low && next < high) || step % 3 === 2) {
      const halved = (low + high) / 2;
      if (!(next > low && next < high) || Math.abs(high - low) > 1e-3 * Math.abs(offset)) next = halved;
    }
    if (next === offset || Math.abs(next - offset) <= Number.EPSILON * Math.abs(next)) return { origin, offset: next };
    if (!(next > low && next < high)) return { origin, offset };
    offset = next;
  }
  throw new MergeError('no-convergence', `Root ${i} of a secular equation of ${n} terms was not found.`);

  /** Where the two nearest poles, and the others as they are in the middle, put the root. */
  function firstGuess(): number {
    if (last) return high / 2;
    const gap = (highPole - lowPole) * (highPole + lowPole);
    const below = (d[i] as number) + middle;
    const differences = [(lowPole - below) * (lowPole + below), (highPole - below) * (highPole + below)] as const;
    const [p, q] = [squares[i] as number, squares[i + 1] as number];
    const rest = f - p / differences[0] - q / differences[1];
    let square: number;
    if (origin === i) {
      const a = rest * gap + p + q;
      const b = p * gap;
      const root = Math.sqrt(Math.abs(a * a - 4 * b * rest));
      square = a > 0 ? (2 * b) / (a + root) : (a - root) / (2 * rest);
    } else {
      const a = -rest * gap + p + q;
      const b = q * gap;
      const root = Math.sqrt(Math.abs(a * a + 4 * b * rest));
      square = a < 0 ? (2 * b) / (a - root) : -(a + root) / (2 * rest);
    }
    return square / (base + Math.sqrt(Math.max(0, base * base + square)));
  }

  /** The step in ω² of Li's middle way, "Solving secular equations stably and efficiently" (1993). */
  function nextSquareStep(): number {
    const omega = base + offset;
    const toLow = (lowPole - base - offset) * (lowPole + omega);
    if (last) {
      // One pole with the value and the slope of all.
      const constant = f - toLow * slopeLow;
      return toLow + (toLow * toLow * slopeLow) / constant;
    }
    const toHigh = (highPole - base - offset) * (highPole + omega);
    const c = f - toLow * slopeLow - toHigh * slopeHigh;
    const a = (toLow + toHigh) * f - toLow * toHigh * (slopeLow + slopeHigh);
    const b = toLow * toHigh * f;
    if (c === 0) return b / a;
    const root = Math.sqrt(Math.abs(a * a - 4 * b * c));
    return a <= 0 ? (a - root) / (2 * c) : (2 * b) / (a + root);
  }
}
