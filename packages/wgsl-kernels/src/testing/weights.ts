// Frozen weights for kernel tests: encoded, cut into parts, and put among the tensors of a run.
import { at } from '../reference/numbers.ts';
import { ArenaPlan } from '../runtime/arena.ts';
import type { KernelCall } from '../runtime/call.ts';
import type { Gpu } from '../runtime/device.ts';
import { GpuError } from '../runtime/errors.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { decodeWeightRows, encodeWeightRows, type WeightType } from '../weights/encode.ts';
import { bindWeight, planWeight, type WeightMatrix, type WeightRefs } from '../weights/weight-matrix.ts';
import { randomNumbers } from './random.ts';
import { runKernel, type TensorInput } from './run-kernel.ts';

export interface TestWeight {
  readonly refs: WeightRefs;
  readonly inputs: Readonly<Record<string, TensorInput>>;
  /** What the shaders see: [rows, columns], decoded. */
  readonly values: Float32Array;
}

/** A random matrix [rows, columns] in parts of at most `limit` bytes; one part when left out. */
export function randomWeight(
  type: WeightType,
  [rows, columns]: readonly [rows: number, columns: number],
  { seed = 1, limit = 2 ** 27 } = {},
): TestWeight {
  // Halves below the normal ones may be read as zero (WGSL lets devices flush them), which is tested apart.
  const drawn = randomNumbers(seed)
    .floats(rows * columns)
    .map((value) => (Math.abs(value) < 2 ** -14 ? 0 : value));
  const refs = planWeight(new ArenaPlan(), 'w', [rows, columns], type, limit);
  const inputs: Record<string, TensorInput> = {};
  const values = new Float32Array(rows * columns);
  for (const part of refs.parts) {
    const [from, to] = [part.firstRow * columns, (part.firstRow + part.rows) * columns];
    const encoded = encodeWeightRows(type, drawn.slice(from, to), columns);
    values.set(decodeWeightRows(type, encoded, columns), from);
    inputs[part.data.name] = { shape: part.data.shape, data: encoded.data };
    if (part.scales && encoded.scales) {
      inputs[part.scales.name] = { shape: part.scales.shape, data: encoded.scales };
    }
  }
  return { refs, inputs, values };
}

/** {@link runKernel} with a weight among the tensors, none of which may be written. */
export async function runWithWeight<Name extends string>(
  gpu: Gpu,
  { refs, inputs: parts }: TestWeight,
  inputs: Readonly<Record<Name, TensorInput>>,
  calls: (tensors: Readonly<Record<Name, Tensor>>, w: WeightMatrix) => KernelCall[],
): Promise<Record<Name, Float32Array>> {
  return await runKernel<string>(gpu, { ...parts, ...inputs }, (tensors) => {
    const w = bindWeight(refs, {
      get({ name }) {
        const tensor = tensors[name];
        if (!tensor) throw new GpuError('shape', `${name} is no tensor of this run.`);
        return tensor;
      },
    });
    return calls(tensors as Readonly<Record<Name, Tensor>>, w);
  });
}

/** Largest of some numbers; a list of any length, unlike Math.max. */
export function largest(count: number, element: (i: number) => number): number {
  let greatest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i += 1) greatest = Math.max(greatest, element(i));
  return greatest;
}

/** By how many epsilons of its own a shader may misread a weight: WGSL grants unpack4x8snorm 3 ULP, and q8 multiplies once. */
export const readError = (type: WeightType): number => (type === 'q8' ? 4 : 0);

/** Rows `ids` of a matrix [rows, columns]. */
export const rowsOf = (values: Float32Array, ids: ArrayLike<number>, columns: number): Float32Array =>
  Float32Array.from({ length: ids.length * columns }, (_, i) =>
    at(values, at(ids, Math.floor(i / columns)) * columns + (i % columns)),
  );
