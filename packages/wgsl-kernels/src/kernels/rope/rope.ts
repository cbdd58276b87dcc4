// Rotary position embedding. The tables come from float64 on the CPU: float32 trigonometry of large angles differs by GPU.

import { foldWorkgroups, type KernelCall } from '../../runtime/call.ts';
import { GpuError } from '../../runtime/errors.ts';
import { layOutParams } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { vectorShaders, vectorSize } from '../shared/vector.ts';
import code from './rope.wgsl?raw';

export const ropeShaders = vectorShaders('rope', code);

/** Where rows stand, and by which angles they turn. */
export interface RopeAngles {
  /** u32 [N]: the position of each row, below P. */
  readonly positions: Tensor;
  /** [P, headSize/2] */
  readonly cos: Tensor;
  /** [P, headSize/2] */
  readonly sin: Tensor;
}

export interface RopeTensors extends RopeAngles {
  /** [N, heads · headSize], rotated in place. */
  readonly x: Tensor;
}

export interface RopeQueryKeyTensors extends RopeAngles {
  /** [N, heads · headSize], rotated in place. */
  readonly q: Tensor;
  /** [N, kvHeads · headSize], rotated in place. */
  readonly k: Tensor;
}

export interface RopeSizes {
  readonly heads: number;
  readonly headSize: number;
}

/** Heads that an invocation turns. */
const HEADS_EACH = 4;
const INVOCATIONS = 64;

/** Throws GpuError 'shape' unless a head has pairs and positions and tables are as {@link RopeAngles} says; gives P. */
export function expectAngles(
  name: string,
  { positions, cos, sin }: RopeAngles,
  { rows, headSize }: { rows: number; headSize: number },
): number {
  if (headSize % 2 !== 0)
    throw new GpuError('shape', `${name}: a head of ${headSize} elements has no pairs to turn; its size must be even.`);
  const [count] = matrixShape(name, 'cos', cos);
  expectShape(name, 'positions', positions, [rows]);
  expectShape(name, 'cos', cos, [count, headSize / 2]);
  expectShape(name, 'sin', sin, [count, headSize / 2]);
  return count;
}

function rope(
  name: string,
  direction: 1 | -1,
  { x, k, ...angles }: RopeTensors & { readonly k: Tensor | null },
  { heads, kvHeads, headSize }: RopeSizes & { readonly kvHeads: number },
): KernelCall[] {
  const rows = Math.trunc(x.elements / (heads * headSize));
  expectShape(name, k ? 'q' : 'x', x, [rows, heads * headSize]);
  if (k) expectShape(name, 'k', k, [rows, kvHeads * headSize]);
  const count = expectAngles(name, angles, { rows, headSize });
  const { positions, cos, sin } = angles;
  const size = vectorSize(headSize / 2);
  const shader = ropeShaders[size];
  const halfHead = headSize / 2 / size;
  const shares = Math.ceil(Math.max(heads, kvHeads) / HEADS_EACH);
  const moved = x.elements + (k?.elements ?? 0);
  return [
    {
      name,
      shader,
      entryPoint: k ? 'query_key' : 'main',
      bindings: [x, cos, sin, positions, ...(k ? [k] : [])],
      uniforms: layOutParams(shader, { rows, heads, kvHeads, halfHead, shares, positions: count, direction }),
      workgroups: foldWorkgroups(Math.ceil((rows * shares * halfHead) / INVOCATIONS)),
      flops: 3 * moved,
      // Of the tables, the rows that are used.
      bytes: 8 * moved + positions.bytes + Math.min(cos.bytes + sin.bytes, 4 * rows * headSize),
    },
  ];
}

/** Rotates x. Throws GpuError 'shape'. */
export const ropeForward = (tensors: RopeTensors, sizes: RopeSizes): KernelCall[] =>
  rope('rope-forward', 1, { ...tensors, k: null }, { ...sizes, kvHeads: 0 });

/** Turns the gradient of the rotated x back. Throws GpuError 'shape'. */
export const ropeBackward = (tensors: RopeTensors, sizes: RopeSizes): KernelCall[] =>
  rope('rope-backward', -1, { ...tensors, k: null }, { ...sizes, kvHeads: 0 });

export interface RopeQueryKeySizes extends RopeSizes {
  readonly kvHeads: number;
}

/** Rotates queries and keys in one dispatch. Throws GpuError 'shape'. */
export const ropeQueryKeyForward = ({ q, ...rest }: RopeQueryKeyTensors, sizes: RopeQueryKeySizes): KernelCall[] =>
  rope('rope-query-key-forward', 1, { x: q, ...rest }, sizes);

/** Turns the gradients of rotated queries and keys back in one dispatch. Throws GpuError 'shape'. */
export const ropeQueryKeyBackward = ({ q, ...rest }: RopeQueryKeyTensors, sizes: RopeQueryKeySizes): KernelCall[] =>
  rope('rope-query-key-backward', -1, { x: q, ...rest }, sizes);

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
