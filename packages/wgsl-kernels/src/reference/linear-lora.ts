// A linear layer with a LoRA branch in float64 (Hu et al. 2021, eq. 3): y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, where the
// branch may have an input of its own.
import { matmul } from './matmul.ts';
import { at, build, type Numbers } from './numbers.ts';

export interface LinearLoraInput {
  /** [N, in] */
  readonly x: Numbers;
  /** Input of the branch [N, in] where it is not x. */
  readonly xLora?: Numbers;
  /** [out, in] */
  readonly w: Numbers;
  /** [rank, in] */
  readonly a: Numbers;
  /** [out, rank] */
  readonly b: Numbers;
  readonly scale: number;
  readonly rank: number;
  readonly rows: number;
}

function sizesOf({ x, w, rows, rank }: LinearLoraInput) {
  const inputs = x.length / rows;
  return { inputs, outputs: w.length / inputs, rows, rank };
}

const add = (x: Numbers, y: Numbers, factor = 1): Float64Array => build(x.length, (i) => at(x, i) + factor * at(y, i));

/** y [N, out] */
export function linearLora(input: LinearLoraInput): Float64Array {
  const { inputs, outputs, rows, rank } = sizesOf(input);
  const xa = matmul('NT', input.xLora ?? input.x, input.a, { rows, columns: rank, inner: inputs });
  const base = matmul('NT', input.x, input.w, { rows, columns: outputs, inner: inputs });
  return add(base, matmul('NT', xa, input.b, { rows, columns: outputs, inner: rank }), input.scale);
}

/**
 * dx [N, in], da [rank, in] and db [out, rank] from dy [N, out]. dxLora [N, in] is the gradient of the branch's input: a
 * part of dx, or apart from it where `xLora` is given.
 */
export function linearLoraGradient(
  input: LinearLoraInput,
  dy: Numbers,
): { dx: Float64Array; dxLora: Float64Array; da: Float64Array; db: Float64Array } {
  const { inputs, outputs, rows, rank } = sizesOf(input);
  const xLora = input.xLora ?? input.x;
  const xa = matmul('NT', xLora, input.a, { rows, columns: rank, inner: inputs });
  const dxa = matmul('NN', dy, input.b, { rows, columns: rank, inner: outputs }).map((value) => value * input.scale);
  const base = matmul('NN', dy, input.w, { rows, columns: inputs, inner: outputs });
  const dxLora = matmul('NN', dxa, input.a, { rows, columns: inputs, inner: rank });
  return {
    dx: input.xLora ? base : add(base, dxLora),
    dxLora,
    da: matmul('TN', dxa, xLora, { rows: rank, columns: inputs, inner: rows }),
    db: matmul('TN', dy, xa, { rows: outputs, columns: rank, inner: rows }).map((value) => value * input.scale),
  };
}
