// What one dispatch of a kernel is: described by kernels, recorded by plans, chosen among variants by the tuner.

import { type Gpu, UNUSED_BINDINGS } from './device.ts';
import { GpuError } from './errors.ts';
import { MAX_WORKGROUPS } from './pacing.ts';
import type { ShaderSource } from './shader.ts';
import { BINDING_ALIGNMENT, type Tensor } from './tensor.ts';

/** One way to run a call. */
export interface KernelVariant {
  /** Unique among the variants of a call. */
  readonly variant: string;
  /** Adapters it was written for; any when left out. */
  readonly suits?: 'any' | 'software' | 'hardware';
  /** Invocations of a subgroup it was written for; any number when left out. It is right for all. */
  readonly subgroup?: { readonly least: number; readonly most: number };
  readonly shader: ShaderSource;
  readonly entryPoint: string;
  readonly workgroups: readonly [x: number, y: number, z: number];
}

/** One dispatch of a kernel. */
export interface KernelCall {
  readonly name: string;
  readonly shader: ShaderSource;
  readonly entryPoint: string;
  /** Compile-time constants; each distinct set is a pipeline of its own, so sizes belong in `uniforms`. */
  readonly constants?: Readonly<Record<string, number>>;
  /** Bound in order to @binding(1), @binding(2) …; @binding(0) is the uniform `params`. */
  readonly bindings: readonly Tensor[];
  /** The @binding of each tensor, for entry points that use only some of their shader's; 1, 2, 3 … when left out. */
  readonly bindingSlots?: readonly number[];
  readonly uniforms: ArrayBuffer;
  readonly workgroups: readonly [x: number, y: number, z: number];
  /**
   * Other ways to compute the same with the same bindings and uniforms, this call's own among them. A plan takes the one
   * that is fastest on its device: see tuner.ts.
   */
  readonly variants?: readonly KernelVariant[];
  /** Calls of one class share the choice; stated where there are variants. */
  readonly tuningClass?: string;
  /** Floating-point operations of this call; a multiply-add is two. */
  readonly flops: number;
  /** Bytes this call must move at least. */
  readonly bytes: number;
  /** Exponentials of this call; none when left out. */
  readonly exps?: number;
  /**
   * Where in `uniforms`, in bytes, a u32 lies that the shader adds to its folded workgroup index. A call that states it may
   * be cut into several dispatches, each of some workgroups. Such a shader does not ask how many workgroups there are, but
   * for finding its own: `params.firstGroup + wg.y * groups.x + wg.x`, with `groups` the builtin num_workgroups.
   */
  readonly firstGroup?: number;
}

/**
 * What a call binds beside its uniforms: its tensors, and unused bytes wherever its shader declares what it leaves out.
 * Throws GpuError 'validation' for more of these than a device has room for.
 */
export function storageEntries(gpu: Gpu, { name, shader, bindings, bindingSlots }: KernelCall): GPUBindGroupEntry[] {
  const entries = bindings.map(({ buffer, offset, bytes }, i) => ({
    binding: bindingSlots?.[i] ?? i + 1,
    resource: { buffer, offset, size: bytes },
  }));
  const bound = new Set(entries.map(({ binding }) => binding));
  const leftOut = (shader.optional ?? []).filter((binding) => !bound.has(binding));
  if (leftOut.length > UNUSED_BINDINGS)
    throw new GpuError(
      'validation',
      `${name} leaves out ${leftOut.length} bindings; at most ${UNUSED_BINDINGS} may be.`,
    );
  const unused = leftOut.map((binding, i) => ({
    binding,
    resource: { buffer: gpu.unused, offset: i * BINDING_ALIGNMENT, size: BINDING_ALIGNMENT },
  }));
  return [...entries, ...unused];
}

/** Folds `count` workgroups into x and y. Shaders take their place as `wg.y * groups.x + wg.x` and return beyond the end. */
export function foldWorkgroups(count: number): [number, number, number] {
  if (count <= MAX_WORKGROUPS) return [Math.max(1, count), 1, 1];
  const rows = Math.ceil(count / MAX_WORKGROUPS);
  if (rows > MAX_WORKGROUPS) throw new GpuError('shape', `${count} workgroups are more than one dispatch can hold.`);
  return [Math.ceil(count / rows), rows, 1];
}
