// The parts of a block that work row by row or element by element: RMSNorm (Zhang and Sennrich 2019), SwiGLU (Shazeer
// 2020) and the cross-entropy at the end, each with its gradient.
import { at, dot } from './numbers.ts';

const inverseRms = (x: Float64Array, first: number, width: number, epsilon: number): number =>
  1 / Math.sqrt(dot(x, first, x, first, width) / width + epsilon);

/** Rows of weight.length elements, each divided by its root mean square and multiplied by the weight. */
export function rmsNorm(x: Float64Array, weight: Float64Array, epsilon: number): Float64Array {
  const width = weight.length;
  const out = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += width) {
    const inverse = inverseRms(x, first, width, epsilon);
    for (let i = 0; i < width; i += 1) out[first + i] = at(x, first + i) * inverse * at(weight, i);
  }
  return out;
}

/** dx of {@link rmsNorm} from dy. */
export function rmsNormGradient(
  x: Float64Array,
  weight: Float64Array,
  epsilon: number,
  dy: Float64Array,
): Float64Array {
  const width = weight.length;
  const out = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += width) {
    const inverse = inverseRms(x, first, width, epsilon);
    const scaled = Float64Array.from(weight, (value, i) => value * at(dy, first + i));
    const along = dot(scaled, 0, x, first, width) / width;
    for (let i = 0; i < width; i += 1)
      out[first + i] = inverse * (at(scaled, i) - inverse * inverse * along * at(x, first + i));
  }
  return out;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** gate·σ(gate)·up */
export const swiglu = (gate: Float64Array, up: Float64Array): Float64Array =>
  gate.map((value, i) => value * sigmoid(value) * at(up, i));

/** dgate and dup of {@link swiglu} from dy. */
export function swigluGradient(
  gate: Float64Array,
  up: Float64Array,
  dy: Float64Array,
): { dgate: Float64Array; dup: Float64Array } {
  const dgate = gate.map((value, i) => {
    const s = sigmoid(value);
    return at(dy, i) * at(up, i) * (s + value * s * (1 - s));
  });
  return { dgate, dup: gate.map((value, i) => at(dy, i) * value * sigmoid(value)) };
}

/** Σ of −log softmax(logits)[target] over rows whose target is not negative, and its gradient. logits [T, V], targets [T]. */
export function crossEntropy(logits: Float64Array, targets: readonly number[]): { sum: number; dlogits: Float64Array } {
  const width = logits.length / targets.length;
  const dlogits = new Float64Array(logits.length);
  let sum = 0;
  for (const [row, target] of targets.entries()) {
    if (target < 0) continue;
    const own = logits.subarray(row * width, (row + 1) * width);
    const highest = own.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    const total = own.reduce((all, value) => all + Math.exp(value - highest), 0);
    sum += highest + Math.log(total) - at(own, target);
    for (const [i, value] of own.entries())
      dlogits[row * width + i] = Math.exp(value - highest) / total - (i === target ? 1 : 0);
  }
  return { sum, dlogits };
}
