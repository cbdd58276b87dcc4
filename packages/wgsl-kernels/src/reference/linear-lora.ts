// A linear layer with a LoRA branch in float64 (Hu et al. 2021, eq. 3): y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ.
import { matmul } from './matmul.ts';
import { at, build, type Numbers } from './numbers.ts';

export interface LinearLoraInput {
  /** [N, in] */
  readonly x: Numbers;
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
  const xa = matmul('NT', input.x, input.a, { rows, columns: rank, inner: inputs });
  const base = matmul('NT', input.x, input.w, { rows, columns: outputs, inner: inputs });
  return add(base, matmul('NT', xa, input.b, { rows, columns: outputs, inner: rank }), input.scale);
}

/** dx [N, in], da [rank, in], db [out, rank] from dy [N, out]. */
export function linearLoraGradient(
  input: LinearLoraInput,
  dy: Numbers,
): { dx: Float64Array; da: Float64Array; db: Float64Array } {
  const { inputs, outputs, rows, rank } = sizesOf(input);
  const xa = matmul('NT', input.x, input.a, { rows, columns: rank, inner: inputs });
  const dxa = matmul('NN', dy, input.b, { rows, columns: rank, inner: outputs }).map((value) => value * input.scale);
  return {
    dx: add(
      matmul('NN', dy, input.w, { rows, columns: inputs, inner: outputs }),
      matmul('NN', dxa, input.a, { rows, columns: inputs, inner: rank }),
    ),
    da: matmul('TN', dxa, input.x, { rows: rank, columns: inputs, inner: rows }),
    db: matmul('TN', dy, xa, { rows: outputs, columns: rank, inner: rows }).map((value) => value * input.scale),
  };
}
