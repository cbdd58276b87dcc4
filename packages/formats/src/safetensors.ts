// The safetensors format (github.com/huggingface/safetensors): eight bytes of header length, a JSON header, then the data
// of every tensor back to back. Hand-written because no kept library was found; small enough to read in one go. This is the
// reading half; writing is in safetensors-write.ts.
import { z } from 'zod';
import { FormatError } from './errors.ts';
import { bfloat16ToFloat32, float16ToFloat32 } from './half.ts';

export const DTYPE_BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 } as const;
export type Dtype = keyof typeof DTYPE_BYTES;

/** One tensor as it lies in the file. `bytes` is a view, not a copy. */
export interface RawTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Bytes from the start of the file. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the data starts, in bytes from the start of the file. */
  readonly dataOffset: number;
}

export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, RawTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Number of elements of a tensor of this shape. */
export const elementsOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** The reference implementation refuses longer headers. */
export const MAX_HEADER_BYTES = 100_000_000;

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});

const isDtype = (dtype: string): dtype is Dtype => Object.hasOwn(DTYPE_BYTES, dtype);

/**
 * Reads the header of a file of `fileBytes` bytes; `bytes` must hold at least the header. Throws FormatError
 * 'safetensors-header' when it is malformed or longer than the file, 'safetensors-tensor' for a tensor whose size and
 * place disagree, 'safetensors-truncated' when the file ends before its data.
 */
export function parseSafetensorsHeader(
  bytes: Uint8Array,
  fileBytes: number,
  file = 'the safetensors file',
): SafetensorsHeader {
  if (fileBytes < 8 || bytes.length < 8)
    throw new FormatError(
      'safetensors-truncated',
      `${file} has ${fileBytes} bytes, too few for a header. Fetch it again.`,
    );
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > BigInt(Math.min(MAX_HEADER_BYTES, fileBytes - 8)) || length > BigInt(bytes.length - 8)) {
    throw new FormatError(
      'safetensors-header',
      `${file} claims a header of ${length} bytes, longer than the file allows (${fileBytes} bytes). It is damaged or not safetensors; fetch it again.`,
    );
  }
  const dataOffset = 8 + Number(length);
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, dataOffset)));
  } catch (cause) {
    throw new FormatError('safetensors-header', `The header of ${file} is not JSON; the file is damaged.`, { cause });
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw new FormatError('safetensors-header', `The header of ${file} is not a JSON object; the file is damaged.`);
  }
  const entries = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(document)) {
    if (name === '__metadata__') {
      const parsed = z.record(z.string(), z.string()).safeParse(value);
      if (!parsed.success)
        throw new FormatError('safetensors-header', `The metadata of ${file} is not a map of strings.`);
      metadata = parsed.data;
    } else {
      entries.set(name, parseEntry(name, value, dataOffset, fileBytes, file));
    }
  }
  checkLayout([...entries.values()], dataOffset, fileBytes, file);
  return { entries, metadata, dataOffset };
}

function parseEntry(name: string, value: unknown, dataOffset: number, fileBytes: number, file: string): TensorEntry {
  const parsed = entrySchema.safeParse(value);
  if (!parsed.success)
    throw new FormatError('safetensors-header', `${file}: the header entry of ${name} is malformed.`, {
      cause: parsed.error,
    });
  const { dtype, shape, data_offsets } = parsed.data;
  if (!isDtype(dtype))
    throw new FormatError('safetensors-tensor', `${file}: ${name} has element type ${dtype}, which is not supported.`);
  const [from, to] = data_offsets;
  const bytes = elementsOf(shape) * DTYPE_BYTES[dtype];
  if (to - from !== bytes) {
    throw new FormatError(
      'safetensors-tensor',
      `${file}: ${name} is ${dtype} [${shape}], ${bytes} bytes, but has ${to - from} bytes of data.`,
    );
  }
  if (dataOffset + to > fileBytes) {
    throw new FormatError(
      'safetensors-truncated',
      `${file} ends before the data of ${name}: ${dataOffset + to} bytes are needed, ${fileBytes} are there. Fetch it again.`,
    );
  }
  return { name, dtype, shape, begin: dataOffset + from, end: dataOffset + to };
}

/** The format forbids holes and overlaps, so that a file has no hidden content. */
function checkLayout(entries: TensorEntry[], dataOffset: number, fileBytes: number, file: string): void {
  let expected = dataOffset;
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== expected)
      throw new FormatError('safetensors-header', `${file}: the data of ${name} does not follow the tensor before it.`);
    expected = end;
  }
  if (expected !== fileBytes)
    throw new FormatError('safetensors-header', `${file} has ${fileBytes - expected} bytes after its last tensor.`);
}

/** Reads a whole file. Throws as {@link parseSafetensorsHeader}. */
export function readSafetensors(bytes: Uint8Array, file?: string): SafetensorsFile {
  const { entries, metadata } = parseSafetensorsHeader(bytes, bytes.length, file);
  const tensors = new Map<string, RawTensor>();
  for (const { name, dtype, shape, begin, end } of entries.values())
    tensors.set(name, { dtype, shape, bytes: bytes.subarray(begin, end) });
  return { tensors, metadata };
}

/** A copy where the elements do not lie at multiples of their size. Not by `slice`, which copies nothing on Node's Buffer. */
const aligned = (bytes: Uint8Array, size: number): Uint8Array =>
  bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);

/** Elements as float32: F32 as they are (a view where alignment allows), F16 and BF16 widened exactly, F64 rounded. */
export function toFloat32({ dtype, bytes }: RawTensor, name = 'a tensor'): Float32Array {
  const data = aligned(bytes, DTYPE_BYTES[dtype]);
  const count = data.length / DTYPE_BYTES[dtype];
  switch (dtype) {
    case 'F32':
      return new Float32Array(data.buffer, data.byteOffset, count);
    case 'F16':
      return float16ToFloat32(new Uint16Array(data.buffer, data.byteOffset, count));
    case 'BF16':
      return bfloat16ToFloat32(new Uint16Array(data.buffer, data.byteOffset, count));
    case 'F64':
      return Float32Array.from(new Float64Array(data.buffer, data.byteOffset, count));
    default:
      throw new FormatError(
        'safetensors-tensor',
        `${name} has element type ${dtype} where floating-point numbers are needed.`,
      );
  }
}

/** Elements as float64, widened exactly. */
export function toFloat64(tensor: RawTensor, name?: string): Float64Array {
  if (tensor.dtype !== 'F64') return Float64Array.from(toFloat32(tensor, name));
  const data = aligned(tensor.bytes, 8);
  return new Float64Array(data.buffer, data.byteOffset, data.length / 8);
}
