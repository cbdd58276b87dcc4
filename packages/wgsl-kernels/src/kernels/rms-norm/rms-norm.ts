// RMSNorm over the last dimension.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { type RowOptions, rowDispatch, rowVariants } from '../shared/rows.ts';
import { vectorShaders, vectorSize } from '../shared/vector.ts';
import code from './rms-norm.wgsl?raw';

export const rmsNormShaders = vectorShaders('rms-norm', code);

/** Rows of an invocation that shares none, as in the shader. */
const ROWS_ALONE = 4;

/** What both passes have in common: shader, uniforms and workgroups. */
function dispatchOf(
  [rows, width]: readonly [number, number],
  { pass, lanes, eps, accumulate }: RowOptions & { pass: string; eps: number; accumulate: boolean },
): Pick<KernelCall, 'shader' | 'entryPoint' | 'workgroups' | 'variants' | 'uniforms'> {
  const size = vectorSize(width);
  const shader = rmsNormShaders[size];
  const vectors = width / size;
  const dispatch = rowDispatch(rows, { vectors, each: ROWS_ALONE });
  return {
    ...rowVariants(shader, dispatch, (each) => `${pass}_${each}`, lanes),
    uniforms: layOutParams(shader, {
      ...{ rows, vectors, lanes: dispatch.lanes },
      ...{ accumulate: accumulate ? 1 : 0, share: 1 / width, eps },
    }),
  };
}

/**
 * y [N, D] = x [N, D] · rstd · weight [D]; rstd [N] is kept for the backward pass. `eps` is the model's rms_norm_eps.
 * Throws GpuError 'shape'.
 */
export function rmsNormForward(
  { x, weight, y, rstd }: { x: Tensor; weight: Tensor; y: Tensor; rstd: Tensor },
  { eps, lanes }: { eps: number } & RowOptions,
): KernelCall[] {
  const [rows, width] = matrixShape('rms-norm-forward', 'x', x);
  expectShape('rms-norm-forward', 'weight', weight, [width]);
  expectShape('rms-norm-forward', 'y', y, [rows, width]);
  expectShape('rms-norm-forward', 'rstd', rstd, [rows]);
  return [
    {
      name: 'rms-norm-forward',
      bindings: [x, weight, rstd, y],
      ...dispatchOf([rows, width], { pass: 'forward', ...(lanes ? { lanes } : {}), eps, accumulate: false }),
      flops: 4 * rows * width,
      bytes: x.bytes + y.bytes + weight.bytes + rstd.bytes,
    },
  ];
}

/** dx [N, D] (+)= the gradient of the norm; x, weight and rstd as in the forward pass. Throws GpuError 'shape'. */
export function rmsNormBackward(
  { x, weight, rstd, dy, dx }: { x: Tensor; weight: Tensor; rstd: Tensor; dy: Tensor; dx: Tensor },
  { accumulate, lanes }: { accumulate: boolean } & RowOptions,
): KernelCall[] {
  const [rows, width] = matrixShape('rms-norm-backward', 'x', x);
  expectShape('rms-norm-backward', 'weight', weight, [width]);
  expectShape('rms-norm-backward', 'rstd', rstd, [rows]);
  expectShape('rms-norm-backward', 'dy', dy, [rows, width]);
  expectShape('rms-norm-backward', 'dx', dx, [rows, width]);
  return [
    {
      name: 'rms-norm-backward',
      bindings: [x, weight, rstd, dy, dx],
      ...dispatchOf([rows, width], { pass: 'backward', ...(lanes ? { lanes } : {}), eps: 0, accumulate }),
      flops: 8 * rows * width,
      bytes: x.bytes + dy.bytes + (accumulate ? 2 : 1) * dx.bytes + weight.bytes + rstd.bytes,
    },
  ];
}
