// The bias of a linear layer. It is frozen, so there is no backward pass: the gradient goes through unchanged.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { vectorShaders, vectorSize, vectorWorkgroups } from '../shared/vector.ts';
import code from './bias.wgsl?raw';

export const biasShaders = vectorShaders('bias', code);

/** y [N, D] += bias [D] in every row. Throws GpuError 'shape'. */
export function biasAdd({ y, bias }: { y: Tensor; bias: Tensor }): KernelCall[] {
  const [, width] = matrixShape('bias-add', 'y', y);
  expectShape('bias-add', 'bias', bias, [width]);
  const size = vectorSize(width);
  const shader = biasShaders[size];
  return [
    {
      name: 'bias-add',
      shader,
      entryPoint: 'main',
      bindings: [y, bias],
      uniforms: layOutParams(shader, { count: y.elements / size, width: width / size }),
      workgroups: vectorWorkgroups(y.elements / size),
      flops: y.elements,
      bytes: 2 * y.bytes + bias.bytes,
    },
  ];
}
