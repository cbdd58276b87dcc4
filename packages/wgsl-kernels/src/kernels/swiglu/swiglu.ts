// SwiGLU, the gated activation of Llama's feed-forward block.
import type { KernelCall } from '../../runtime/call.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseShaders, elementwiseVariants, type PlacementOptions, vectorSize } from '../shared/vector.ts';
import code from './swiglu.wgsl?raw';

export const swigluShaders = elementwiseShaders('swiglu', code);

/** out = silu(gate) · up, all [N, F]. Throws GpuError 'shape'. */
export function swigluForward(
  { gate, up, out }: { gate: Tensor; up: Tensor; out: Tensor },
  options: PlacementOptions = {},
): KernelCall[] {
  expectShape('swiglu-forward', 'up', up, gate.shape);
  expectShape('swiglu-forward', 'out', out, gate.shape);
  return [describe('forward', [gate, up, out], { flops: 6, streams: 3, ...options })];
}

/** dgate and dup from dout, all [N, F]; gate and up as in the forward pass. Throws GpuError 'shape'. */
export function swigluBackward(
  tensors: { gate: Tensor; up: Tensor; dout: Tensor; dgate: Tensor; dup: Tensor },
  options: PlacementOptions = {},
): KernelCall[] {
  const { gate, up, dout, dgate, dup } = tensors;
  for (const [name, tensor] of Object.entries({ up, dout, dgate, dup }))
    expectShape('swiglu-backward', name, tensor, gate.shape);
  return [describe('backward', [gate, up, dout, dgate, dup], { flops: 12, streams: 5, ...options })];
}

/** A call over tensors of one shape; `flops` of an element, `streams` of tensors read or written. */
function describe(
  entryPoint: 'forward' | 'backward',
  bindings: readonly [Tensor, ...Tensor[]],
  { flops, streams, ...options }: { flops: number; streams: number } & PlacementOptions,
): KernelCall {
  const [{ elements, bytes }] = bindings;
  const size = vectorSize(elements);
  const count = elements / size;
  const dispatch = elementwiseVariants(swigluShaders, entryPoint, { size, count }, options);
  return {
    name: `swiglu-${entryPoint}`,
    ...dispatch,
    bindings,
    uniforms: layOutParams(dispatch.shader, { count }),
    flops: flops * elements,
    bytes: streams * bytes,
    exps: elements,
  };
}
