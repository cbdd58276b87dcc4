// The bias of a linear layer. It is frozen, so there is no backward pass: the gradient goes through unchanged.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './bias.wgsl?raw';

export const biasShader: ShaderSource = { name: 'bias', code };

/** y [N, D] += bias [D] in every row. Throws GpuError 'shape'. */
export function biasAdd({ y, bias }: { y: Tensor; bias: Tensor }): KernelCall[] {
  const [rows, width] = matrixShape('bias-add', 'y', y);
  expectShape('bias-add', 'bias', bias, [width]);
  return [
    {
      name: 'bias-add',
      shader: biasShader,
      entryPoint: 'main',
      bindings: [y, bias],
      uniforms: layOutParams(biasShader, { rows, width }),
      workgroups: elementwiseWorkgroups(y.elements),
      flops: y.elements,
      bytes: 2 * y.bytes + bias.bytes,
    },
  ];
}
