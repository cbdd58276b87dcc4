// A linear layer with LoRA branches (Hu et al. 2021, eq. 3): y = x·Wᵀ + bias + Σ s·(x·Aᵀ)·Bᵀ. One branch is trained and may
// drop elements of its input, as PEFT's lora_dropout does, or is a sparse matrix in the place of a product; the others are
// frozen.
import { at, float64, type Numbers, product, sumOf, times, timesTransposed, transposedTimes } from './numbers.ts';

/** ΔW = scale · B · A. */
export interface Branch {
  /** [rank, in] */
  readonly a: Numbers;
  /** [out, rank] */
  readonly b: Numbers;
  readonly scale: number;
  /** Of a sparse ΔW (SLoRA): `b` [out, perRow] are its elements in these columns, and `a` is empty. */
  readonly columns?: Numbers;
}

export interface Linear {
  readonly in: number;
  /** [out, in] */
  readonly weight: Float64Array;
  /** [out], or null */
  readonly bias: Float64Array | null;
  readonly trained: Branch | null;
  readonly frozen: readonly Branch[];
}

/** Factors of the branch's input, [T, in]: 0 where an element is dropped, 1/(1 − rate) where it is kept; null drops nothing. */
export type Mask = Float64Array | null;

const masked = (x: Float64Array, mask: Mask): Float64Array => (mask ? product(x, mask) : x);

/** x·Aᵀ, [T, rank] */
const down = (x: Float64Array, { a }: Branch, width: number): Float64Array => timesTransposed(x, float64(a), width);

const scaled = (x: Float64Array, factor: number): Float64Array => x.map((value) => factor * value);

const rankOf = ({ a }: Branch, width: number): number => a.length / width;

/** A sparse ΔW in full, [out, in]; null for a factored one. */
function denseOf({ b, columns }: Branch, { weight, in: width }: Linear): Float64Array | null {
  if (!columns) return null;
  const dense = new Float64Array(weight.length);
  for (const k of Array(b.length).keys()) dense[placeOf(k, b, columns, weight.length / width, width)] = at(b, k);
  return dense;
}

/** Where element k of a sparse matrix lies in the full one. */
const placeOf = (k: number, b: Numbers, columns: Numbers, outputs: number, width: number): number =>
  Math.floor((k * outputs) / b.length) * width + at(columns, k);

/** x [T, in] → y [T, out] */
export function linear(layer: Linear, x: Float64Array, mask: Mask): Float64Array {
  const { in: width, weight, bias, trained, frozen } = layer;
  const branch = (own: Branch, input: Float64Array) =>
    scaled(timesTransposed(down(input, own, width), float64(own.b), rankOf(own, width)), own.scale);
  const delta = trained && denseOf(trained, layer);
  const y = sumOf(
    timesTransposed(x, weight, width),
    ...frozen.map((side) => branch(side, x)),
    ...(trained ? [delta ? timesTransposed(x, delta, width) : branch(trained, masked(x, mask))] : []),
  );
  return bias ? y.map((value, i) => value + at(bias, i % bias.length)) : y;
}

/** dx [T, in] from dy [T, out], and dA [rank, in], dB [out, rank] of the trained branch. */
export function linearGradient(
  layer: Linear,
  x: Float64Array,
  mask: Mask,
  dy: Float64Array,
): { dx: Float64Array; factors: { a: Float64Array; b: Float64Array } | null } {
  const { in: width, weight, trained, frozen } = layer;
  const outputs = weight.length / width;
  const tokens = x.length / width;
  /** s·dy·B, [T, rank] */
  const up = (own: Branch) => scaled(times(dy, float64(own.b), outputs), own.scale);
  const through = (own: Branch) => times(up(own), float64(own.a), rankOf(own, width));
  const dx = sumOf(times(dy, weight, outputs), ...frozen.map(through));
  if (!trained) return { dx, factors: null };
  const delta = denseOf(trained, layer);
  if (delta && trained.columns) {
    const whole = transposedTimes(dy, x, tokens);
    const { b, columns } = trained;
    const values = Float64Array.from(b, (_, k) => at(whole, placeOf(k, b, columns, outputs, width)));
    return { dx: sumOf(dx, times(dy, delta, outputs)), factors: { a: new Float64Array(0), b: values } };
  }
  const input = masked(x, mask);
  return {
    dx: sumOf(dx, masked(through(trained), mask)),
    factors: {
      a: transposedTimes(up(trained), input, tokens),
      b: scaled(transposedTimes(dy, down(input, trained, width), tokens), trained.scale),
    },
  };
}
