// Rotary position embedding. The tables come from float64 on the CPU: float32 trigonometry of large angles differs by GPU.
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './rope.wgsl?raw';

export const ropeShader: ShaderSource = { name: 'rope', code };

export interface RopeTensors {
  /** [N, heads · headSize], rotated in place. Row n stands at position n mod sequence. */
  readonly x: Tensor;
  /** [sequence, headSize/2] */
  readonly cos: Tensor;
  /** [sequence, headSize/2] */
  readonly sin: Tensor;
}

export interface RopeSizes {
  readonly heads: number;
  readonly headSize: number;
  readonly sequence: number;
}

function rope(
  name: string,
  direction: 1 | -1,
  { x, cos, sin }: RopeTensors,
  { heads, headSize, sequence }: RopeSizes,
): KernelCall[] {
  const halfHead = headSize / 2;
  const rows = x.elements / (heads * headSize);
  expectShape(name, 'x', x, [rows, heads * headSize]);
  expectShape(name, 'cos', cos, [sequence, halfHead]);
  expectShape(name, 'sin', sin, [sequence, halfHead]);
  return [
    {
      name,
      shader: ropeShader,
      entryPoint: 'main',
      bindings: [x, cos, sin],
      uniforms: layOutParams(ropeShader, { rows, heads, halfHead, sequence, direction }),
      workgroups: elementwiseWorkgroups(rows * heads * halfHead),
      flops: 3 * x.elements,
      bytes: 2 * x.bytes + cos.bytes + sin.bytes,
    },
  ];
}

/** Rotates x. Throws GpuError 'shape'. */
export const ropeForward = (tensors: RopeTensors, sizes: RopeSizes): KernelCall[] =>
  rope('rope-forward', 1, tensors, sizes);

/** Turns the gradient of the rotated x back. Throws GpuError 'shape'. */
export const ropeBackward = (tensors: RopeTensors, sizes: RopeSizes): KernelCall[] =>
  rope('rope-backward', -1, tensors, sizes);

/**
 * Cosines and sines [sequence, headSize/2] of position · theta^(−2i/headSize), computed in float64 and rounded once
 * (Su et al. 2021, eq. 15).
 */
export function ropeTables(
  sequence: number,
  headSize: number,
  theta: number,
): { cos: Float32Array; sin: Float32Array } {
  const half = headSize / 2;
  const cos = new Float32Array(sequence * half);
  const sin = new Float32Array(sequence * half);
  for (let position = 0; position < sequence; position += 1) {
    for (let i = 0; i < half; i += 1) {
      const angle = position * theta ** ((-2 * i) / headSize);
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  return { cos, sin };
}
