// Dropout (Srivastava et al. 2014) as PyTorch scales it. The same call with the same seed drops the same elements, so it
// serves the forward and the backward pass.

import type { KernelCall } from '../../runtime/call.ts';
import { GpuError } from '../../runtime/errors.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './dropout.wgsl?raw';

export const dropoutShader: ShaderSource = { name: 'dropout', code };

export interface DropoutOptions {
  /** Share of the elements that is dropped, in [0, 1). */
  readonly rate: number;
  /** Tells apart the masks of one seed. */
  readonly salt: number;
  /** Add to out instead of replacing it. */
  readonly accumulate: boolean;
}

/** Elements whose 32 hashed bits are below this are dropped. */
export const dropoutThreshold = (rate: number): number => Math.floor(rate * 2 ** 32);

/** out (+)= x · mask / (1 − rate), all of one shape; seed u32 [2]. Throws GpuError 'shape'. */
export function dropout(
  { x, seed, out }: { x: Tensor; seed: Tensor; out: Tensor },
  { rate, salt, accumulate }: DropoutOptions,
): KernelCall[] {
  if (!(rate >= 0 && rate < 1)) throw new GpuError('shape', `dropout: a rate of ${rate} is not in [0, 1).`);
  expectShape('dropout', 'seed', seed, [2]);
  expectShape('dropout', 'out', out, x.shape);
  const uniforms = layOutParams(dropoutShader, {
    count: x.elements,
    salt,
    accumulate: accumulate ? 1 : 0,
    threshold: dropoutThreshold(rate),
    scale: 1 / (1 - rate),
  });
  return [
    {
      name: 'dropout',
      shader: dropoutShader,
      entryPoint: 'main',
      bindings: [x, seed, out],
      uniforms,
      workgroups: elementwiseWorkgroups(x.elements),
      flops: x.elements,
      bytes: (accumulate ? 3 : 2) * x.bytes,
    },
  ];
}
