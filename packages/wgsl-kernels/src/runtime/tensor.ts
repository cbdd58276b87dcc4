// A tensor is a place in a buffer with a name and a shape. No data, no ownership.
import { GpuError } from './errors.ts';

export type ElementType = 'f32' | 'u32' | 'i32';

export interface Tensor {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly elements: number;
  readonly buffer: GPUBuffer;
  /** Bytes from the start of the buffer; a multiple of 256. */
  readonly offset: number;
  /** 4 · elements. */
  readonly bytes: number;
}

/** Offsets of bindings must be multiples of this many bytes (WebGPU's default limit). */
export const BINDING_ALIGNMENT = 256;

export const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** A view of `shape` inside `tensor`, starting `elementOffset` elements in. Throws GpuError 'shape'. */
export function subTensor(tensor: Tensor, elementOffset: number, shape: readonly number[]): Tensor {
  const elements = elementsOf(shape);
  if (elementOffset < 0 || elementOffset + elements > tensor.elements) {
    throw new GpuError(
      'shape',
      `${tensor.name}: [${shape}] at ${elementOffset} reaches beyond its ${tensor.elements} elements.`,
    );
  }
  const offset = tensor.offset + 4 * elementOffset;
  if (offset % BINDING_ALIGNMENT !== 0) {
    throw new GpuError(
      'shape',
      `${tensor.name}: a view must start at a multiple of 64 elements, not at ${elementOffset}.`,
    );
  }
  return { ...tensor, shape: [...shape], elements, offset, bytes: 4 * elements };
}

/** The same elements under another shape. Throws GpuError 'shape' when their number differs. */
export function reshape(tensor: Tensor, shape: readonly number[]): Tensor {
  if (elementsOf(shape) !== tensor.elements) {
    throw new GpuError('shape', `${tensor.name}: [${tensor.shape}] cannot be read as [${shape}].`);
  }
  return { ...tensor, shape: [...shape] };
}

/** Throws GpuError 'shape' naming kernel, tensor and both shapes unless `tensor` has `shape`. */
export function expectShape(kernel: string, name: string, tensor: Tensor, shape: readonly number[]): void {
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i])) {
    throw new GpuError('shape', `${kernel}: ${name} (${tensor.name}) is [${tensor.shape}] where [${shape}] is needed.`);
  }
}

/** The two sizes of a matrix. Throws GpuError 'shape' for any other number of dimensions. */
export function matrixShape(kernel: string, name: string, tensor: Tensor): readonly [rows: number, columns: number] {
  const [rows, columns] = tensor.shape;
  if (tensor.shape.length !== 2 || rows === undefined || columns === undefined) {
    throw new GpuError('shape', `${kernel}: ${name} (${tensor.name}) is [${tensor.shape}] where a matrix is needed.`);
  }
  return [rows, columns];
}
