// Rotary position embedding. The tables come from float64 on the CPU: float32 trigonometry of large angles differs by GPU.
import { GpuError } from '../../runtime/errors.ts';
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { elementwiseWorkgroups } from '../elementwise.ts';
import code from './rope.wgsl?raw';

export const ropeShader: ShaderSource = { name: 'rope', code };

export interface RopeTensors {
  /** [N, heads · headSize], rotated in place. */
  readonly x: Tensor;
  /** u32 [N]: the position of each row, below P. */
  readonly positions: Tensor;
  /** [P, headSize/2] */
  readonly cos: Tensor;
  /** [P, headSize/2] */
  readonly sin: Tensor;
}

export interface RopeSizes {
  readonly heads: number;
  readonly headSize: number;
}

function rope(
  name: string,
  direction: 1 | -1,
  { x, positions, cos, sin }: RopeTensors,
  { heads, headSize }: RopeSizes,
): KernelCall[] {
  if (headSize % 2 !== 0)
    throw new GpuError('shape', `${name}: a head of ${headSize} elements has no pairs to turn; its size must be even.`);
  const halfHead = headSize / 2;
  const rows = x.elements / (heads * headSize);
  const [count] = matrixShape(name, 'cos', cos);
  expectShape(name, 'x', x, [rows, heads * headSize]);
  expectShape(name, 'positions', positions, [rows]);
  expectShape(name, 'cos', cos, [count, halfHead]);
  expectShape(name, 'sin', sin, [count, halfHead]);
  return [
    {
      name,
      shader: ropeShader,
      entryPoint: 'main',
      bindings: [x, cos, sin, positions],
      uniforms: layOutParams(ropeShader, { rows, heads, halfHead, positions: count, direction }),
      workgroups: elementwiseWorkgroups(rows * heads * halfHead),
      flops: 3 * x.elements,
      bytes: 2 * x.bytes + positions.bytes + cos.bytes + sin.bytes,
    },
  ];
}

/** Rotates x. Throws GpuError 'shape'. */
export const ropeForward = (tensors: RopeTensors, sizes: RopeSizes): KernelCall[] =>
  rope('rope-forward', 1, tensors, sizes);

/** Turns the gradient of the rotated x back. Throws GpuError 'shape'. */
export const ropeBackward = (tensors: RopeTensors, sizes: RopeSizes): KernelCall[] =>
  rope('rope-backward', -1, tensors, sizes);

/** How frequencies are stretched for contexts longer than those trained on. */
export type RopeScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositions: number;
    };

/**
 * Angle per position of pair i of a head: theta^(−2i/headSize) (Su et al. 2021, eq. 15). `linear` divides all by the factor
 * (Chen et al. 2023). `llama3` (Llama 3.1, as in transformers' modeling_rope_utils) divides those whose wavelength is beyond
 * original/low, keeps those below original/high, and goes smoothly from one to the other.
 */
export function ropeFrequencies(headSize: number, theta: number, scaling: RopeScaling | null): Float64Array {
  return Float64Array.from({ length: headSize / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headSize);
    if (!scaling) return frequency;
    const slow = frequency / scaling.factor;
    if (scaling.kind === 'linear') return slow;
    const { lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions } = scaling;
    const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
    if (turns < low) return slow;
    if (turns > high) return frequency;
    const smooth = (turns - low) / (high - low);
    return (1 - smooth) * slow + smooth * frequency;
  });
}

/** Cosines and sines [positions, headSize/2], computed in float64 and rounded once. */
export function ropeTables(
  positions: number,
  headSize: number,
  { theta, scaling }: { theta: number; scaling: RopeScaling | null },
): { cos: Float32Array; sin: Float32Array } {
  const half = headSize / 2;
  const frequencies = ropeFrequencies(headSize, theta, scaling);
  const angles = (function_: (angle: number) => number): Float32Array =>
    Float32Array.from({ length: positions * half }, (_, i) =>
      function_(Math.floor(i / half) * (frequencies[i % half] ?? 0)),
    );
  return { cos: angles(Math.cos), sin: angles(Math.sin) };
}
