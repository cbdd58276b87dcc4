// Writing safetensors files: first the plan (header, and where each tensor lies), then the elements, in pieces of any size, so
// that a file larger than memory can be written. `writeSafetensors` is both at once for files that fit.
import { FormatError } from './errors.ts';
import { bfloat16Bits, float16Bits } from './half.ts';
import { DTYPE_BYTES, type Dtype, elementsOf, type TensorEntry } from './safetensors.ts';

/** Element types that numbers can be written as. */
export type FloatDtype = 'F64' | 'F32' | 'F16' | 'BF16';

export interface TensorToPlan {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

export interface TensorToWrite extends TensorToPlan {
  readonly dtype: FloatDtype;
  readonly data: Float32Array | Float64Array;
}

export interface SafetensorsPlan {
  /** The file's first bytes, up to the data. */
  readonly header: Uint8Array;
  /** Bytes of the whole file. */
  readonly size: number;
  /** Every tensor and its place, in the order in which they lie in the file. */
  readonly entries: readonly TensorEntry[];
}

/**
 * Lays a file out. Tensors are ordered by element size and name, which keeps each aligned, and the header is padded to eight
 * bytes: equal content gives equal bytes, and so an equal hash. Throws FormatError 'safetensors-tensor' for a repeated name.
 */
export function planSafetensors(
  tensors: readonly TensorToPlan[],
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsPlan {
  const ordered = [...tensors].sort(
    (a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1),
  );
  // Without a prototype, so that a tensor may have any name.
  const header: Record<string, unknown> = Object.create(null);
  const sortedMetadata = Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1));
  if (sortedMetadata.length > 0) header.__metadata__ = Object.fromEntries(sortedMetadata);
  let size = 0;
  const places = ordered.map(({ name, dtype, shape }) => {
    if (Object.hasOwn(header, name)) throw new FormatError('safetensors-tensor', `Two tensors are called ${name}.`);
    const begin = size;
    size += elementsOf(shape) * DTYPE_BYTES[dtype];
    header[name] = { dtype, shape, data_offsets: [begin, size] };
    return { name, dtype, shape, begin, end: size };
  });
  const json = new TextEncoder().encode(JSON.stringify(header));
  const dataOffset = 8 + Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(dataOffset).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(dataOffset - 8), true);
  bytes.set(json, 8);
  const entries = places.map((place) => ({ ...place, begin: dataOffset + place.begin, end: dataOffset + place.end }));
  return { header: bytes, size: dataOffset + size, entries };
}

/** Whether a finite number becomes infinite in the type: a file must not hide an overflow. */
const OVERFLOWS: Readonly<Record<FloatDtype, (value: number) => boolean>> = {
  F64: () => false,
  F32: (value) => Number.isFinite(value) && !Number.isFinite(Math.fround(value)),
  F16: (value) => Number.isFinite(value) && Math.abs(value) >= 65520,
  // Half a step beyond the largest bfloat16, (2 − 2⁻⁷)·2¹²⁷.
  BF16: (value) => Number.isFinite(value) && Math.abs(value) >= (2 - 2 ** -8) * 2 ** 127,
};

/**
 * Elements as they lie in a file, each rounded once, to nearest and ties to even. Throws FormatError 'safetensors-tensor' for a
 * finite number that the type cannot hold; `name` says whose it is.
 */
export function encodeElements(
  dtype: FloatDtype,
  values: Float32Array | Float64Array,
  name = 'a tensor',
): Uint8Array<ArrayBuffer> {
  const overflows = OVERFLOWS[dtype];
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i] ?? 0;
    if (overflows(value)) {
      throw new FormatError(
        'safetensors-tensor',
        `${name} holds ${value} at element ${i}, which ${dtype} cannot; write it as a wider type.`,
      );
    }
  }
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype]);
  if (dtype === 'F64') new Float64Array(bytes.buffer).set(values);
  else if (dtype === 'F32') new Float32Array(bytes.buffer).set(values);
  else {
    const patterns = new Uint16Array(bytes.buffer);
    const bitsOf = dtype === 'F16' ? float16Bits : bfloat16Bits;
    for (let i = 0; i < values.length; i += 1) patterns[i] = bitsOf(values[i] ?? 0);
  }
  return bytes;
}

/** Writes a whole file. Throws FormatError 'safetensors-tensor' when a shape and its data disagree, and as the two above. */
export function writeSafetensors(
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  for (const { name, shape, data } of tensors) {
    if (elementsOf(shape) !== data.length)
      throw new FormatError('safetensors-tensor', `${name} is [${shape}] but has ${data.length} elements.`);
  }
  const plan = planSafetensors(tensors, metadata);
  const places = new Map(plan.entries.map(({ name, begin }) => [name, begin]));
  const file = new Uint8Array(plan.size);
  file.set(plan.header);
  for (const { name, dtype, data } of tensors) file.set(encodeElements(dtype, data, name), places.get(name) ?? 0);
  return file;
}
