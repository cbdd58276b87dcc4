// RMSNorm over the last dimension.
import { foldWorkgroups, type KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import code from './rms-norm.wgsl?raw';

/** As in the shader. */
const ROWS_PER_WORKGROUP = 4;

export const rmsNormShader: ShaderSource = { name: 'rms-norm', code };

/**
 * y [N, D] = x [N, D] · rstd · weight [D]; rstd [N] is kept for the backward pass. `eps` is the model's rms_norm_eps.
 * Throws GpuError 'shape'.
 */
export function rmsNormForward(
  { x, weight, y, rstd }: { x: Tensor; weight: Tensor; y: Tensor; rstd: Tensor },
  { eps }: { eps: number },
): KernelCall[] {
  const [rows, width] = matrixShape('rms-norm-forward', 'x', x);
  expectShape('rms-norm-forward', 'weight', weight, [width]);
  expectShape('rms-norm-forward', 'y', y, [rows, width]);
  expectShape('rms-norm-forward', 'rstd', rstd, [rows]);
  return [
    {
      name: 'rms-norm-forward',
      shader: rmsNormShader,
      entryPoint: 'forward',
      bindings: [x, weight, rstd, y],
      uniforms: layOutParams(rmsNormShader, { rows, width, accumulate: 0, eps }),
      workgroups: foldWorkgroups(Math.ceil(rows / ROWS_PER_WORKGROUP)),
      flops: 4 * rows * width,
      bytes: x.bytes + y.bytes + weight.bytes + rstd.bytes,
    },
  ];
}

/** dx [N, D] (+)= the gradient of the norm; x, weight and rstd as in the forward pass. Throws GpuError 'shape'. */
export function rmsNormBackward(
  { x, weight, rstd, dy, dx }: { x: Tensor; weight: Tensor; rstd: Tensor; dy: Tensor; dx: Tensor },
  { accumulate }: { accumulate: boolean },
): KernelCall[] {
  const [rows, width] = matrixShape('rms-norm-backward', 'x', x);
  expectShape('rms-norm-backward', 'weight', weight, [width]);
  expectShape('rms-norm-backward', 'rstd', rstd, [rows]);
  expectShape('rms-norm-backward', 'dy', dy, [rows, width]);
  expectShape('rms-norm-backward', 'dx', dx, [rows, width]);
  return [
    {
      name: 'rms-norm-backward',
      shader: rmsNormShader,
      entryPoint: 'backward',
      bindings: [x, weight, rstd, dy, dx],
      uniforms: layOutParams(rmsNormShader, { rows, width, accumulate: accumulate ? 1 : 0, eps: 0 }),
      workgroups: foldWorkgroups(Math.ceil(rows / ROWS_PER_WORKGROUP)),
      flops: 8 * rows * width,
      bytes: x.bytes + dy.bytes + dx.bytes + weight.bytes + rstd.bytes,
    },
  ];
}
