// SwiGLU, the gated activation of Llama's feed-forward block.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './swiglu.wgsl?raw';

export const swigluShader: ShaderSource = { name: 'swiglu', code };

/** out = silu(gate) · up, all [N, F]. Throws GpuError 'shape'. */
export function swigluForward({ gate, up, out }: { gate: Tensor; up: Tensor; out: Tensor }): KernelCall[] {
  expectShape('swiglu-forward', 'up', up, gate.shape);
  expectShape('swiglu-forward', 'out', out, gate.shape);
  return [
    {
      name: 'swiglu-forward',
      shader: swigluShader,
      entryPoint: 'forward',
      bindings: [gate, up, out],
      uniforms: layOutParams(swigluShader, { count: gate.elements }),
      workgroups: elementwiseWorkgroups(gate.elements),
      flops: 6 * gate.elements,
      bytes: 3 * gate.bytes,
    },
  ];
}

/** dgate and dup from dout, all [N, F]; gate and up as in the forward pass. Throws GpuError 'shape'. */
export function swigluBackward(tensors: {
  gate: Tensor;
  up: Tensor;
  dout: Tensor;
  dgate: Tensor;
  dup: Tensor;
}): KernelCall[] {
  const { gate, up, dout, dgate, dup } = tensors;
  for (const [name, tensor] of Object.entries({ up, dout, dgate, dup }))
    expectShape('swiglu-backward', name, tensor, gate.shape);
  return [
    {
      name: 'swiglu-backward',
      shader: swigluShader,
      entryPoint: 'backward',
      bindings: [gate, up, dout, dgate, dup],
      uniforms: layOutParams(swigluShader, { count: gate.elements }),
      workgroups: elementwiseWorkgroups(gate.elements),
      flops: 12 * gate.elements,
      bytes: 5 * gate.bytes,
    },
  ];
}
