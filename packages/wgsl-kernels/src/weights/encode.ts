// Rows of a frozen matrix as the GPU keeps them, encoded and decoded on the CPU. Not the matrix (weight-matrix.ts) and not
// the reading on the GPU (weight-*.wgsl). A row is padded with zeros to whole pairs of blocks of 32, so that a row starts
// at a word in every array and shaders address all types alike: in vectors of four elements.
import { GpuError } from '../runtime/errors.ts';
import { halfBits, halfFromFloatBits, halfValue, LARGEST_HALF } from './half.ts';

/**
 * How a base weight is kept: `f32` as it is; `f16` rounded; `q8` and `q4` as signed integers of 8 or 4 bits with a half
 * as scale for 32 of them (16, 8.5 and 4.5 bits a weight).
 */
export type WeightType = 'f32' | 'f16' | 'q8' | 'q4';

export const WEIGHT_TYPES: readonly WeightType[] = ['f32', 'f16', 'q8', 'q4'];

/** Elements of a row that share a scale. */
export const BLOCK = 32;
/** Encoded rows are multiples of this many elements: two blocks, whose scales share a word. */
const ROW_MULTIPLE = 2 * BLOCK;

export interface EncodedRows {
  /** f32: [rows, columns]; else words [rows, {@link dataWords}]. */
  readonly data: Float32Array | Uint32Array;
  /** q8 and q4: words [rows, {@link scaleWords}], two halves each. */
  readonly scales: Uint32Array | null;
}

/** Elements from one row to the next. */
export const rowStride = (type: WeightType, columns: number): number =>
  type === 'f32' ? columns : Math.ceil(columns / ROW_MULTIPLE) * ROW_MULTIPLE;

const ELEMENTS_PER_WORD: Readonly<Record<WeightType, number>> = { f32: 1, f16: 2, q8: 4, q4: 8 };

/** Words of a row's data. */
export const dataWords = (type: WeightType, columns: number): number =>
  rowStride(type, columns) / ELEMENTS_PER_WORD[type];

/** Words of a row's scales; 0 for types that have none. */
export const scaleWords = (type: WeightType, columns: number): number =>
  type === 'q8' || type === 'q4' ? rowStride(type, columns) / ROW_MULTIPLE : 0;

/** Bytes of a row, data and scales. */
export const rowBytes = (type: WeightType, columns: number): number =>
  4 * (dataWords(type, columns) + scaleWords(type, columns));

/**
 * Encodes whole rows [rows, columns]. Throws GpuError 'shape' for parts of a row, and 'weight-value' for NaN, infinities
 * and numbers the type cannot hold.
 */
export function encodeWeightRows(type: WeightType, values: Float32Array, columns: number): EncodedRows {
  const rows = values.length / columns;
  if (!Number.isInteger(rows)) {
    throw new GpuError('shape', `${values.length} elements are no whole rows of ${columns}.`);
  }
  const stride = rowStride(type, columns);
  expectFinite(values);
  if (type === 'f32') return { data: values, scales: null };
  // Bytes and halves are laid out by typed arrays, which are little-endian wherever WebGPU runs, as WGSL's unpacking is.
  const data = new Uint32Array(rows * dataWords(type, columns));
  if (type === 'f16') {
    encodeHalves(values, columns, stride, new Uint16Array(data.buffer));
    return { data, scales: null };
  }
  const scales = new Uint32Array(rows * scaleWords(type, columns));
  const encode = type === 'q8' ? encodeBlock8 : encodeBlock4;
  const [bytes, halves] = [new Uint8Array(data.buffer), new Uint16Array(scales.buffer)];
  const block = new Float32Array(BLOCK);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < stride; column += BLOCK) {
      const count = Math.max(0, Math.min(BLOCK, columns - column));
      block.fill(0);
      block.set(values.subarray(row * columns + column, row * columns + column + count));
      const place = row * stride + column;
      halves[place / BLOCK] = encode(block, bytes, place);
    }
  }
  return { data, scales };
}

/** The float32 values [rows, columns] that shaders see in {@link EncodedRows}. */
export function decodeWeightRows(type: WeightType, { data, scales }: EncodedRows, columns: number): Float32Array {
  const rows = data.length / dataWords(type, columns);
  if (type === 'f32') return Float32Array.from(data);
  const stride = rowStride(type, columns);
  const [bytes, halves] = [new Int8Array(data.buffer, data.byteOffset), new Uint16Array(data.buffer, data.byteOffset)];
  const scaleOf = (i: number): number => halfValue(((scales?.[i >>> 6] ?? 0) >>> (16 * ((i >>> 5) & 1))) & 0xffff);
  const element = (i: number): number => {
    if (type === 'f16') return halfValue(halves[i] ?? 0);
    if (type === 'q8') return ((bytes[i] ?? 0) * scaleOf(i)) / 127;
    // Eight elements in four bytes: the first four in the low nibbles, the others in the high ones.
    const byte = bytes[4 * (i >>> 3) + (i & 3)] ?? 0;
    return (((byte >>> (i & 4)) & 15) - 8) * scaleOf(i);
  };
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) values[row * columns + column] = element(row * stride + column);
  }
  return values;
}

function expectFinite(values: Float32Array): void {
  for (let i = 0; i < values.length; i += 1) {
    if (!Number.isFinite(values[i])) {
      throw new GpuError('weight-value', `Weight ${i} is ${values[i]}. The file is damaged: fetch the model again.`);
    }
  }
}

function tooLarge(type: WeightType, value: number, largest: number): never {
  throw new GpuError(
    'weight-value',
    `A weight of ${value} is beyond what ${type} can hold (±${largest}). Load this model with base weights in f32.`,
  );
}

function encodeHalves(values: Float32Array, columns: number, stride: number, out: Uint16Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i += 1) {
    const half = halfFromFloatBits(bits[i] ?? 0);
    if ((half & 0x7fff) >= 0x7c00) tooLarge('f16', values[i] ?? 0, LARGEST_HALF);
    out[Math.floor(i / columns) * stride + (i % columns)] = half;
  }
}

/** The element farthest from zero. */
function extremeOf(block: Float32Array): number {
  let extreme = 0;
  for (let i = 0; i < BLOCK; i += 1) {
    const value = block[i] ?? 0;
    if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  }
  return extreme;
}

/** Codes round(x / s · 127), s the greatest |x| as a half; returns the half. */
function encodeBlock8(block: Float32Array, bytes: Uint8Array, place: number): number {
  const extreme = extremeOf(block);
  const half = halfBits(Math.abs(extreme));
  if (half >= 0x7c00) tooLarge('q8', extreme, LARGEST_HALF);
  const scale = halfValue(half);
  if (scale === 0) return 0;
  for (let i = 0; i < BLOCK; i += 1) {
    bytes[place + i] = Math.max(-127, Math.min(127, Math.round((127 * (block[i] ?? 0)) / scale)));
  }
  return half;
}

const code4 = (value: number, scale: number): number => Math.max(-8, Math.min(7, Math.round(value / scale)));

function squaredError4(block: Float32Array, scale: number): number {
  let sum = 0;
  for (let i = 0; i < BLOCK; i += 1) {
    const value = block[i] ?? 0;
    sum += (value - scale * code4(value, scale)) ** 2;
  }
  return sum;
}

/**
 * Codes 8 + round(x / d) of −8 … 7; returns d, signed, as a half. d is first such that the element farthest from zero is
 * −8·d, which uses the one code that has no opposite; then, with the codes this gives, the d of least squares
 * Σ x·code / Σ code², where that errs less.
 */
function encodeBlock4(block: Float32Array, bytes: Uint8Array, place: number): number {
  const extreme = extremeOf(block);
  let half = halfBits(extreme / -8);
  if ((half & 0x7fff) >= 0x7c00) tooLarge('q4', extreme, 8 * LARGEST_HALF);
  let scale = halfValue(half);
  if (scale !== 0) {
    let [products, squares] = [0, 0];
    for (let i = 0; i < BLOCK; i += 1) {
      const value = block[i] ?? 0;
      const code = code4(value, scale);
      products += value * code;
      squares += code * code;
    }
    const fitted = halfBits(products / squares);
    const fittedScale = halfValue(fitted);
    if (
      Number.isFinite(fittedScale) &&
      fittedScale !== 0 &&
      squaredError4(block, fittedScale) < squaredError4(block, scale)
    ) {
      half = fitted;
      scale = fittedScale;
    }
  }
  for (let i = 0; i < BLOCK; i += 1) {
    const code = 8 + (scale === 0 ? 0 : code4(block[i] ?? 0, scale));
    const byte = place / 2 + 4 * (i >>> 3) + (i & 3);
    bytes[byte] = (bytes[byte] ?? 0) | (code << (i & 4));
  }
  return half;
}
