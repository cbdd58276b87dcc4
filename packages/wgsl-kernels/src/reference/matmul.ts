// Matrix products in float64. `NT`, `NN`, `TN` as in kernels/matmul: which operand is stored transposed.
import { at, build, type Numbers, sumOf } from './numbers.ts';

/** Sizes of the product: c is [rows, columns], `inner` is summed over. */
export interface ProductSizes {
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
}

export type ProductKind = 'NT' | 'NN' | 'TN';

function product(kind: ProductKind, a: Numbers, b: Numbers, sizes: ProductSizes, value: (x: number) => number) {
  const { rows, columns, inner } = sizes;
  return build(rows * columns, (i) => {
    const m = Math.floor(i / columns);
    const n = i % columns;
    return sumOf(inner, (k) => {
      const left = at(a, kind === 'TN' ? k * rows + m : m * inner + k);
      const right = at(b, kind === 'NT' ? n * inner + k : k * columns + n);
      return value(left * right);
    });
  });
}

/** The product: a·bᵀ (NT), a·b (NN) or aᵀ·b (TN). */
export const matmul = (kind: ProductKind, a: Numbers, b: Numbers, sizes: ProductSizes): Float64Array =>
  product(kind, a, b, sizes, (x) => x);

/** Σ |a||b| of every element of the product: what rounding errors of the sum scale with. */
export const matmulMagnitude = (kind: ProductKind, a: Numbers, b: Numbers, sizes: ProductSizes): Float64Array =>
  product(kind, a, b, sizes, Math.abs);
