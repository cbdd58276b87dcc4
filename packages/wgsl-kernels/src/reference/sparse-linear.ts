// A sparse branch of a linear layer in float64: y = x·Sᵀ for S [out, in] with the elements values [out, perRow] in
// columns [out, perRow], and 0 elsewhere (Babakniya et al. 2023).
import { matmul } from './matmul.ts';
import { at, build, type Numbers } from './numbers.ts';

export interface SparseLinearInput {
  /** [N, in] */
  readonly x: Numbers;
  readonly values: Numbers;
  readonly columns: Numbers;
  readonly rows: number;
  readonly perRow: number;
}

function sizesOf({ x, values, rows, perRow }: SparseLinearInput) {
  return { rows, inputs: x.length / rows, outputs: values.length / perRow };
}

/** S [out, in] */
export function denseOfSparse({ values, columns, perRow }: Omit<SparseLinearInput, 'x' | 'rows'>, inputs: number) {
  const dense = new Float64Array((values.length / perRow) * inputs);
  for (let k = 0; k < values.length; k += 1) dense[Math.floor(k / perRow) * inputs + at(columns, k)] = at(values, k);
  return dense;
}

/** y [N, out] */
export function sparseLinear(input: SparseLinearInput): Float64Array {
  const { rows, inputs, outputs } = sizesOf(input);
  return matmul('NT', input.x, denseOfSparse(input, inputs), { rows, columns: outputs, inner: inputs });
}

/** dx [N, in], and dyᵀ·x at the places: dvalues [out, perRow]. */
export function sparseLinearGradient(
  input: SparseLinearInput,
  dy: Numbers,
): { dx: Float64Array; dvalues: Float64Array } {
  const { rows, inputs, outputs } = sizesOf(input);
  const whole = matmul('TN', dy, input.x, { rows: outputs, columns: inputs, inner: rows });
  return {
    dx: matmul('NN', dy, denseOfSparse(input, inputs), { rows, columns: inputs, inner: outputs }),
    dvalues: build(input.values.length, (k) => at(whole, Math.floor(k / input.perRow) * inputs + at(input.columns, k))),
  };
}
