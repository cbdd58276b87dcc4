// Shaders written once over a type `Vector`: vec4f where sizes are multiples of four, which is what adapters read best, and
// f32 for all other sizes.
import { foldWorkgroups } from '../../runtime/call.ts';
import type { ShaderSource } from '../../runtime/shader.ts';
import four from './four.wgsl?raw';
import one from './one.wgsl?raw';

/** Elements of a `Vector`. */
export type VectorSize = 1 | 4;

export type VectorShaders = Readonly<Record<VectorSize, ShaderSource>>;

/** Both shaders of a text over `Vector`. */
export const vectorShaders = (name: string, code: string): VectorShaders => ({
  4: { name: `${name}-4`, code: code + four },
  1: { name: `${name}-1`, code: code + one },
});

/** The largest vectors into which all of these sizes divide. */
export const vectorSize = (...sizes: readonly number[]): VectorSize => (sizes.every((size) => size % 4 === 0) ? 4 : 1);

/** Vectors of an invocation in element-wise shaders, 64 apart: written out, since software adapters pay for loops. */
const VECTORS = 4;
const INVOCATIONS = 64;

/** Workgroups for `count` vectors in element-wise shaders. */
export const vectorWorkgroups = (count: number): [number, number, number] =>
  foldWorkgroups(Math.ceil(count / (INVOCATIONS * VECTORS)));
