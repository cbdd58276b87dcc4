// A frozen matrix on the GPU: its type, and the parts it is cut into where it is larger than one binding may be. Forward
// and backward products read the very same parts; nothing here computes.
import type { ArenaPlan, TensorRef, TensorSource } from '../runtime/arena.ts';
import type { Gpu } from '../runtime/device.ts';
import { GpuError } from '../runtime/errors.ts';
import { matrixShape, type Tensor } from '../runtime/tensor.ts';
import { dataWords, encodeWeightRows, rowBytes, rowStride, scaleWords, type WeightType } from './encode.ts';

/** Rows of a matrix that lie in one tensor, and their scales in another for types that have them. */
export interface WeightRows<T> {
  readonly firstRow: number;
  readonly rows: number;
  /** f32 [rows, columns]; else u32 [rows, words of a row]. */
  readonly data: T;
  readonly scales: T | null;
}

interface Weight<T> {
  readonly name: string;
  readonly type: WeightType;
  /** out */
  readonly rows: number;
  /** in */
  readonly columns: number;
  readonly parts: readonly WeightRows<T>[];
}

export type WeightPart = WeightRows<Tensor>;
/** [rows, columns] = [out, in] as in Hugging Face's files. */
export type WeightMatrix = Weight<Tensor>;
/** A {@link WeightMatrix} that is planned but not allocated. */
export type WeightRefs = Weight<TensorRef>;

/** Parts start at multiples of this, so that what is computed from them starts at whole vectors. */
const ROWS_MULTIPLE = 64;
/** Shaders index elements in 32 bits. */
const MOST_ELEMENTS = 2 ** 32 - 1;

/**
 * Plans a matrix of [rows, columns] in as few parts of at most `limit` bytes as it takes. Throws GpuError 'shape' when not
 * even 64 rows fit, or for sizes that are none.
 */
export function planWeight(
  plan: ArenaPlan,
  name: string,
  [rows, columns]: readonly [rows: number, columns: number],
  type: WeightType,
  limit: number,
): WeightRefs {
  const [dataRow, scaleRow] = [dataWords(type, columns), scaleWords(type, columns)];
  const fitting = Math.min(Math.floor(limit / (4 * dataRow)), Math.floor(MOST_ELEMENTS / rowStride(type, columns)));
  const most = fitting >= rows ? rows : Math.floor(fitting / ROWS_MULTIPLE) * ROWS_MULTIPLE;
  if (!(most > 0)) {
    throw new GpuError(
      'shape',
      `${name} [${rows},${columns}] cannot be kept as ${type}: ${ROWS_MULTIPLE} rows of ${4 * dataRow} bytes do not fit in ${limit}.`,
    );
  }
  const parts: WeightRows<TensorRef>[] = [];
  for (let firstRow = 0; firstRow < rows; firstRow += most) {
    const count = Math.min(most, rows - firstRow);
    const partName = most === rows ? name : `${name} [${firstRow}…]`;
    parts.push({
      firstRow,
      rows: count,
      data: plan.tensor(partName, [count, dataRow], type === 'f32' ? 'f32' : 'u32'),
      scales: scaleRow > 0 ? plan.tensor(`${partName} scales`, [count, scaleRow], 'u32') : null,
    });
  }
  return { name, type, rows, columns, parts };
}

/** The tensors of a planned matrix. Throws GpuError 'shape' when it was planned elsewhere. */
export function bindWeight(refs: WeightRefs, source: TensorSource): WeightMatrix {
  const parts = refs.parts.map((part) => ({
    ...part,
    data: source.get(part.data),
    scales: part.scales && source.get(part.scales),
  }));
  return { ...refs, parts };
}

/** A plain f32 tensor [rows, columns] as a matrix of one part. Throws GpuError 'shape'. */
export function weightOf(tensor: Tensor): WeightMatrix {
  const [rows, columns] = matrixShape('weight', 'tensor', tensor);
  return {
    name: tensor.name,
    type: 'f32',
    rows,
    columns,
    parts: [{ firstRow: 0, rows, data: tensor, scales: null }],
  };
}

/** Exact bytes of a matrix before the arena aligns its parts. */
export const weightBytes = (type: WeightType, rows: number, columns: number): number => rows * rowBytes(type, columns);

/**
 * Encodes whole rows and queues their upload, whichever parts they fall into; creates nothing on the GPU. A matrix is
 * written in pieces of rows, so that its float32 values never exist at once. Throws GpuError as {@link encodeWeightRows}
 * does, and 'shape' for rows beyond the matrix.
 */
export function writeWeightRows(gpu: Gpu, weight: WeightMatrix, firstRow: number, values: Float32Array): void {
  const { name, type, rows, columns } = weight;
  const end = firstRow + values.length / columns;
  if (!Number.isInteger(end) || !(firstRow >= 0) || end > rows) {
    throw new GpuError('shape', `${name} [${rows},${columns}] has no rows ${firstRow} to ${end}.`);
  }
  for (const part of weight.parts) {
    const from = Math.max(firstRow, part.firstRow);
    const to = Math.min(end, part.firstRow + part.rows);
    if (from >= to) continue;
    const piece = values.subarray((from - firstRow) * columns, (to - firstRow) * columns);
    const { data, scales } = encodeWeightRows(type, piece, columns);
    writeRows(gpu, part.data, from - part.firstRow, data, dataWords(type, columns));
    if (part.scales && scales) {
      writeRows(gpu, part.scales, from - part.firstRow, scales, scaleWords(type, columns));
    }
  }
}

function writeRows(gpu: Gpu, tensor: Tensor, row: number, words: Float32Array | Uint32Array, rowWords: number): void {
  const { buffer, byteOffset, byteLength } = words;
  gpu.device.queue.writeBuffer(
    tensor.buffer,
    tensor.offset + 4 * row * rowWords,
    buffer as ArrayBuffer,
    byteOffset,
    byteLength,
  );
}
