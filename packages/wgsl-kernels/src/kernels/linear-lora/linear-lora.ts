// A linear layer with a LoRA branch, forward and backward, composed of matrix products (Hu et al. 2021, eq. 3):
// y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ. W [out, in] is frozen; A [r, in] and B [out, r] are trained. The wide half of the branch, (x·Aᵀ)·Bᵀ and
// its gradient to x, rides on the product with W. The branch alone is there too, since a layer may have several.
import type { KernelCall } from '../../runtime/call.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { WeightMatrix } from '../../weights/weight-matrix.ts';
import { matmulNN, matmulNT, matmulTN } from '../matmul/matmul.ts';
import { type MatmulOptions, weightNN, weightNT } from '../matmul/weight-matmul.ts';

export interface LoraForward {
  /** [N, in] */
  readonly x: Tensor;
  /** [r, in] */
  readonly a: Tensor;
  /** [out, r] */
  readonly b: Tensor;
  /** [N, out], added to. */
  readonly y: Tensor;
  /** x·Aᵀ [N, r], written; the backward pass wants it. */
  readonly xa: Tensor;
}

/** y += s·(x·Aᵀ)·Bᵀ; `scale` is s. Throws GpuError 'shape', as all functions here do. */
export function loraForward({ x, a, b, y, xa }: LoraForward, { scale }: { scale: number }): KernelCall[] {
  return [...matmulNT({ a: x, b: a, c: xa }), ...matmulNT({ a: xa, b, c: y }, { alpha: scale, accumulate: true })];
}

export interface LinearLoraForward extends LoraForward {
  /** [out, in] */
  readonly w: WeightMatrix;
  /** [N, out], written. */
  readonly y: Tensor;
  /** Input of the branch [N, in] where it is not x: x after dropout. */
  readonly xLora?: Tensor;
}

/** y = x·Wᵀ + s·(xLora·Aᵀ)·Bᵀ + bias + residual; `scale` is s. */
export function linearLoraForward(
  { x, w, a, b, y, xa, xLora = x }: LinearLoraForward,
  { scale, ...added }: { scale: number } & Pick<MatmulOptions, 'bias' | 'residual'>,
): KernelCall[] {
  return [
    ...matmulNT({ a: xLora, b: a, c: xa }),
    ...weightNT({ x, w, y }, { ...added, branch: { input: xa, factor: b, scale } }),
  ];
}

export interface LoraBackward {
  /** [N, out] */
  readonly dy: Tensor;
  /** Input of the branch [N, in], as in the forward pass. */
  readonly x: Tensor;
  /** [N, r], as the forward pass left it. */
  readonly xa: Tensor;
  readonly a: Tensor;
  readonly b: Tensor;
  /** Scratch [N, r]: s·dy·B. */
  readonly dxa: Tensor;
  /** [N, in], added to; left out where no gradient flows further down. */
  readonly dx?: Tensor;
  /**
   * [N, in], written with the gradient of the branch's input, which then is not added to dx: for a caller that has to
   * mask it first.
   */
  readonly dxLora?: Tensor;
  /** [r, in]; left out where A is not trained. */
  readonly da?: Tensor;
  /** [out, r]; left out where B is not trained. */
  readonly db?: Tensor;
}

export interface LoraBackwardOptions {
  /** s of y += s·(x·Aᵀ)·Bᵀ. */
  readonly scale: number;
  /** Add to da and db instead of replacing them: gradients of several micro-batches. */
  readonly accumulateFactors?: boolean;
}

/** s·dy·B, and the gradients of the factors from it. */
function factorGradients(
  { dy, x, xa, b, dxa, da, db }: Pick<LoraBackward, 'dy' | 'x' | 'xa' | 'b' | 'dxa' | 'da' | 'db'>,
  { scale, accumulateFactors = false }: LoraBackwardOptions,
  needsDxa: boolean,
): KernelCall[] {
  const factors = { accumulate: accumulateFactors };
  return [
    ...(needsDxa || da ? matmulNN({ a: dy, b, c: dxa }, { alpha: scale }) : []),
    ...(db ? matmulTN({ a: dy, b: xa, c: db }, { alpha: scale, ...factors }) : []),
    ...(da ? matmulTN({ a: dxa, b: x, c: da }, factors) : []),
  ];
}

/** Gradients of the branch alone: da, db, and that of its input. */
export function loraBackward(branch: LoraBackward, options: LoraBackwardOptions): KernelCall[] {
  const { a, dxa, dx, dxLora } = branch;
  return [
    ...factorGradients(branch, options, dx !== undefined || dxLora !== undefined),
    ...(dxLora ? matmulNN({ a: dxa, b: a, c: dxLora }) : []),
    ...(dx && !dxLora ? matmulNN({ a: dxa, b: a, c: dx }, { accumulate: true }) : []),
  ];
}

export interface LinearLoraBackward extends LoraBackward {
  /** [N, in], as in the forward pass. */
  readonly x: Tensor;
  readonly w: WeightMatrix;
  /** Input of the branch where it is not x. */
  readonly xLora?: Tensor;
  /** [N, in], written, or added to with `accumulateDx`; left out where no gradient flows further down. */
  readonly dx?: Tensor;
}

/** `accumulateDx` adds to dx instead of replacing it, for inputs shared by several layers. */
export function linearLoraBackward(
  { w, xLora, ...branch }: LinearLoraBackward,
  { accumulateDx = false, ...options }: LoraBackwardOptions & { readonly accumulateDx?: boolean },
): KernelCall[] {
  const { dy, x, a, dxa, dx, dxLora } = branch;
  const own = { ...branch, x: xLora ?? x };
  if (!dx) return loraBackward(own, options);
  if (dxLora) return [...weightNN({ dy, w, dx }, { accumulate: accumulateDx }), ...loraBackward(own, options)];
  return [
    ...factorGradients(own, options, true),
    ...weightNN({ dy, w, dx }, { accumulate: accumulateDx, branch: { input: dxa, factor: a } }),
  ];
}
