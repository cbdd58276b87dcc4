// A linear layer with a LoRA branch, forward and backward, composed of matrix products (Hu et al. 2021, eq. 3):
// y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ. W [out, in] is frozen; A [r, in] and B [out, r] are trained.
import type { KernelCall } from '../../runtime/plan.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import { matmulNN, matmulNT, matmulTN } from '../matmul/matmul.ts';

export interface LinearLoraForward {
  /** [N, in] */
  readonly x: Tensor;
  /** [out, in] */
  readonly w: Tensor;
  /** [r, in] */
  readonly a: Tensor;
  /** [out, r] */
  readonly b: Tensor;
  /** [N, out], written. */
  readonly y: Tensor;
  /** x·Aᵀ [N, r], written; the backward pass wants it. */
  readonly xa: Tensor;
}

/** `scale` is s of y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ. */
export function linearLoraForward(
  { x, w, a, b, y, xa }: LinearLoraForward,
  { scale }: { scale: number },
): KernelCall[] {
  return [
    ...matmulNT({ a: x, b: a, c: xa }),
    ...matmulNT({ a: x, b: w, c: y }),
    ...matmulNT({ a: xa, b, c: y }, { alpha: scale, accumulate: true }),
  ];
}

export interface LinearLoraBackward {
  /** [N, out] */
  readonly dy: Tensor;
  /** [N, in], as in the forward pass. */
  readonly x: Tensor;
  /** [N, r], as the forward pass left it. */
  readonly xa: Tensor;
  readonly w: Tensor;
  readonly a: Tensor;
  readonly b: Tensor;
  /** Scratch [N, r]: s·dy·B. */
  readonly dxa: Tensor;
  /** [N, in]; left out where no gradient flows further down. */
  readonly dx?: Tensor;
  /** [r, in]; left out where A is not trained. */
  readonly da?: Tensor;
  /** [out, r]; left out where B is not trained. */
  readonly db?: Tensor;
}

/** `accumulateDx` adds to dx instead of replacing it, for inputs shared by several layers. */
export function linearLoraBackward(
  { dy, x, xa, w, a, b, dxa, dx, da, db }: LinearLoraBackward,
  { scale, accumulateDx = false }: { scale: number; accumulateDx?: boolean },
): KernelCall[] {
  const needsDxa = da !== undefined || dx !== undefined;
  return [
    ...(needsDxa ? matmulNN({ a: dy, b, c: dxa }, { alpha: scale }) : []),
    ...(db ? matmulTN({ a: dy, b: xa, c: db }, { alpha: scale }) : []),
    ...(da ? matmulTN({ a: dxa, b: x, c: da }) : []),
    ...(dx ? matmulNN({ a: dy, b: w, c: dx }, { accumulate: accumulateDx }) : []),
    ...(dx ? matmulNN({ a: dxa, b: a, c: dx }, { accumulate: true }) : []),
  ];
}
