// Shaders written once over a type `Vector`: vec4f where sizes are multiples of four, which is what adapters read best, and
// f32 for all other sizes.
import { foldWorkgroups, type KernelCall, type KernelVariant } from '../../runtime/call.ts';
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

/**
 * How the four vectors that an invocation has in element-wise shaders lie. `apart`: 64 from each other, so that neighbours
 * read neighbours, as GPUs read best. `together`: one behind the other, so that what software adapters fetch at once belongs
 * to one invocation, for they read each invocation's vector by itself. Both are right everywhere.
 */
export const PLACEMENTS = ['apart', 'together'] as const;
export type Placement = (typeof PLACEMENTS)[number];

export interface PlacementOptions {
  /** For tests; when left out, the plan takes what suits its device. */
  readonly placement?: Placement;
}

export type ElementwiseShaders = Readonly<Record<Placement, VectorShaders>>;

/** Vectors of an invocation, and invocations of a workgroup. The vectors are written out: software adapters pay for loops. */
const VECTORS = 4;
const INVOCATIONS = 64;

const placed = (name: string, code: string, placement: Placement): VectorShaders => {
  const [own, step] = placement === 'apart' ? [1, INVOCATIONS] : [VECTORS, 1];
  // Where an invocation's first vector lies, as a multiple of its index, and how far from it the others do.
  return vectorShaders(`${name}-${placement}`, `const OWN = ${own}u;\nconst STEP = ${step}u;\n${code}`);
};

/** All shaders of an element-wise text, which takes its vectors by `OWN` and `STEP`. */
export const elementwiseShaders = (name: string, code: string): ElementwiseShaders => ({
  apart: placed(name, code, 'apart'),
  together: placed(name, code, 'together'),
});

/** An entry point over `count` vectors in both placements as variants; `placement` fixes one of them. */
export function elementwiseVariants(
  shaders: ElementwiseShaders,
  entryPoint: string,
  { size, count }: { readonly size: VectorSize; readonly count: number },
  { placement: fixed }: PlacementOptions,
): Pick<KernelCall, 'shader' | 'entryPoint' | 'workgroups' | 'variants'> {
  const workgroups = foldWorkgroups(Math.ceil(count / (INVOCATIONS * VECTORS)));
  const variant = (placement: Placement): KernelVariant => ({
    variant: placement,
    suits: placement === 'together' ? 'software' : 'any',
    ...{ shader: shaders[placement][size], entryPoint, workgroups },
  });
  return {
    ...{ shader: shaders[fixed ?? 'apart'][size], entryPoint, workgroups },
    ...(fixed === undefined ? { variants: [variant('apart'), variant('together')] } : {}),
  };
}
