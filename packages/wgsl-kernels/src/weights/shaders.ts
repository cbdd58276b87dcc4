// The WGSL texts that read a weight of each type: @binding(2) its data and, where it has them, @binding(4) its scales.
import type { Tensor } from '../runtime/tensor.ts';
import type { WeightType } from './encode.ts';
import elementCode from './weight-element.wgsl?raw';
import f16Code from './weight-f16.wgsl?raw';
import f32Code from './weight-f32.wgsl?raw';
import f32ElementCode from './weight-f32-element.wgsl?raw';
import type { WeightPart } from './weight-matrix.ts';
import q4Code from './weight-q4.wgsl?raw';
import q8Code from './weight-q8.wgsl?raw';

/** Gives `weight4(i: u32) -> vec4f`: the i-th vector of four elements, rows being whole vectors. */
export const weightVectorCode: Readonly<Record<WeightType, string>> = {
  f32: f32Code,
  f16: f16Code,
  q8: q8Code,
  q4: q4Code,
};

/** Gives `weight(i: u32) -> f32`: the i-th element, rows being of any length. */
export const weightElementCode: Readonly<Record<WeightType, string>> = {
  f32: f32ElementCode,
  f16: f16Code + elementCode,
  q8: q8Code + elementCode,
  q4: q4Code + elementCode,
};

/** Bindings of a dispatch over a part, with their slots: what is read, the part, what is written. */
export function weightBindings(
  input: Tensor,
  { data, scales }: WeightPart,
  output: Tensor,
): { bindings: Tensor[]; bindingSlots: number[] } {
  return scales
    ? { bindings: [input, data, output, scales], bindingSlots: [1, 2, 3, 4] }
    : { bindings: [input, data, output], bindingSlots: [1, 2, 3] };
}
