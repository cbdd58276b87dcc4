// RMSNorm of every head of queries or keys and then rotary position embedding, in one dispatch each way.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { expectAngles, type RopeAngles, type RopeSizes } from '../rope/rope.ts';
import { type RowOptions, rowDispatch, rowVariants } from '../shared/rows.ts';
import { vectorShaders, vectorSize } from '../shared/vector.ts';
import code from './rms-norm-rope.wgsl?raw';

export const rmsNormRopeShaders = vectorShaders('rms-norm-rope', code);

interface NormedHeads extends RopeAngles {
  /** [N, heads · headSize], before the norm. */
  readonly x: Tensor;
  /** [headSize] */
  readonly weight: Tensor;
  /** [N · heads]: written by the forward pass, read by the backward pass. */
  readonly rstd: Tensor;
}

function dispatchOf(
  name: string,
  { x, weight, rstd, ...angles }: NormedHeads,
  { pass, heads, headSize, eps, lanes }: RopeSizes & { pass: string; eps: number } & RowOptions,
): Pick<KernelCall, 'shader' | 'entryPoint' | 'workgroups' | 'variants' | 'uniforms'> {
  const rows = Math.trunc(x.elements / (heads * headSize));
  expectShape(name, 'x', x, [rows, heads * headSize]);
  expectShape(name, 'weight', weight, [headSize]);
  expectShape(name, 'rstd', rstd, [rows * heads]);
  const positions = expectAngles(name, angles, { rows, headSize });
  const size = vectorSize(headSize / 2);
  const shader = rmsNormRopeShaders[size];
  const count = rows * heads;
  const halfHead = headSize / 2 / size;
  const dispatch = rowDispatch(count, { vectors: halfHead, each: 1 });
  return {
    ...rowVariants(shader, dispatch, (each) => `${pass}_${each}`, lanes),
    uniforms: layOutParams(shader, {
      ...{ count, heads, halfHead, lanes: dispatch.lanes, positions },
      ...{ share: 1 / headSize, eps },
    }),
  };
}

/** Bytes of positions, tables, weight and rstd that a call touches at least. */
const besides = ({ x, weight, rstd, positions, cos, sin }: NormedHeads, { heads }: RopeSizes): number =>
  positions.bytes + Math.min(cos.bytes + sin.bytes, x.bytes / heads) + weight.bytes + rstd.bytes;

/**
 * y [N, heads · headSize] = every head of x · rstd · weight, rotated; rstd is kept for the backward pass. `eps` is the
 * model's rms_norm_eps. Throws GpuError 'shape'.
 */
export function rmsNormRopeForward(
  { y, ...tensors }: NormedHeads & { readonly y: Tensor },
  sizes: RopeSizes & { eps: number } & RowOptions,
): KernelCall[] {
  const { x, weight, rstd, positions, cos, sin } = tensors;
  const name = 'rms-norm-rope-forward';
  expectShape(name, 'y', y, x.shape);
  return [
    {
      name,
      bindings: [x, weight, rstd, cos, sin, positions, y],
      ...dispatchOf(name, tensors, { ...sizes, pass: 'forward' }),
      flops: 7 * x.elements,
      bytes: x.bytes + y.bytes + besides(tensors, sizes),
    },
  ];
}

/** From the gradient of y in `dy` [N, heads · headSize], which becomes the gradient of x. Throws GpuError 'shape'. */
export function rmsNormRopeBackward(
  { dy, ...tensors }: NormedHeads & { readonly dy: Tensor },
  sizes: RopeSizes & RowOptions,
): KernelCall[] {
  const { x, weight, rstd, positions, cos, sin } = tensors;
  const name = 'rms-norm-rope-backward';
  expectShape(name, 'dy', dy, x.shape);
  return [
    {
      name,
      bindings: [x, weight, rstd, cos, sin, positions, dy],
      ...dispatchOf(name, tensors, { ...sizes, pass: 'backward', eps: 0 }),
      flops: 11 * x.elements,
      bytes: x.bytes + 2 * dy.bytes + besides(tensors, sizes),
    },
  ];
}
