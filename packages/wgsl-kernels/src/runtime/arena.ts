// Memory is planned first and allocated after, exactly as planned: tensors are packed into slabs no larger than what one
// binding may cover. Kernels bind every tensor as read-write storage, because WebGPU forbids one buffer to be both
// read-only and writable in a dispatch, and tensors of one dispatch may share a slab.
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import { BINDING_ALIGNMENT, type ElementType, elementsOf, type Tensor } from './tensor.ts';

/** The default limit of a storage binding, and so of a slab: 128 MiB. */
export const SLAB_BYTES = 128 * 1024 * 1024;

const align = (bytes: number): number => Math.ceil(bytes / BINDING_ALIGNMENT) * BINDING_ALIGNMENT;

/** A tensor that is planned but not allocated. */
export interface TensorRef {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

interface Placement {
  readonly ref: TensorRef;
  readonly slab: number;
  readonly offset: number;
}

/** Where planned tensors are looked up: an arena, or a plan that only describes them. */
export interface TensorSource {
  /** Throws GpuError 'shape' for a tensor that was planned elsewhere. */
  get(ref: TensorRef): Tensor;
}

/** Stands for a buffer where kernel calls are only described and counted, never recorded. */
const NO_BUFFER = Object.freeze({}) as GPUBuffer;

export class ArenaPlan {
  readonly #slabLimit: number;
  readonly #placements: Placement[] = [];
  readonly #slabs: number[] = [];

  /** @param slabLimit largest buffer in bytes; at most the device's binding limit */
  constructor(slabLimit: number = SLAB_BYTES) {
    this.#slabLimit = slabLimit;
  }

  /** Plans a tensor. Throws GpuError 'shape' for an empty one or one larger than a slab. */
  tensor(name: string, shape: readonly number[], type: ElementType = 'f32'): TensorRef {
    const bytes = 4 * elementsOf(shape);
    if (!(bytes > 0) || !shape.every((size) => Number.isInteger(size))) {
      throw new GpuError('shape', `${name}: [${shape}] is not the shape of a tensor.`);
    }
    if (bytes > this.#slabLimit) {
      throw new GpuError(
        'shape',
        `${name} [${shape}] takes ${bytes} bytes; a tensor may have at most ${this.#slabLimit}.`,
      );
    }
    const ref = { name, type, shape: [...shape], bytes };
    const size = align(bytes);
    let slab = this.#slabs.findIndex((used) => used + size <= this.#slabLimit);
    if (slab < 0) slab = this.#slabs.push(0) - 1;
    const offset = this.#slabs[slab] ?? 0;
    this.#slabs[slab] = offset + size;
    this.#placements.push({ ref, slab, offset });
    return ref;
  }

  /** Exact bytes of the buffers that {@link allocate} creates. */
  get bytes(): number {
    return this.#slabs.reduce((sum, size) => sum + size, 0);
  }

  /** Every tensor with the bytes it takes, padding included, in the order planned. */
  rows(): { name: string; bytes: number }[] {
    return this.#placements.map(({ ref }) => ({ name: ref.name, bytes: align(ref.bytes) }));
  }

  /** The tensors without memory, to describe kernel calls and count what they cost. Nothing of it can be recorded. */
  describe(): TensorSource {
    const tensors = new Map(
      this.#placements.map(({ ref, offset }) => [ref, { ...ref, elements: ref.bytes / 4, buffer: NO_BUFFER, offset }]),
    );
    return { get: (ref) => tensors.get(ref) ?? notPlanned(ref) };
  }

  /** Creates the buffers, zeroed. Throws GpuError 'out-of-memory', with nothing left allocated. */
  async allocate(gpu: Gpu): Promise<Arena> {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const slabs: GPUBuffer[] = [];
    gpu.device.pushErrorScope('validation');
    gpu.device.pushErrorScope('out-of-memory');
    let thrown: unknown = null;
    try {
      for (const [i, bytes] of this.#slabs.entries()) {
        const slab = gpu.createBuffer(`slab ${i}`, bytes, usage);
        slabs.push(slab);
      }
      // Touch every byte: some drivers only find out then that the memory is not there.
      const encoder = gpu.device.createCommandEncoder({ label: 'clear slabs' });
      for (const slab of slabs) encoder.clearBuffer(slab);
      gpu.submit([encoder.finish()]);
    } catch (error) {
      thrown = error;
    }
    // Both scopes are closed before anyone else may open one.
    const errors = await Promise.all([gpu.device.popErrorScope(), gpu.device.popErrorScope()]);
    const cause = thrown ?? errors.find((error) => error !== null) ?? null;
    if (cause !== null) {
      for (const slab of slabs) gpu.destroyBuffer(slab);
      throw new GpuError(
        'out-of-memory',
        `The GPU has no room for ${this.bytes} bytes. Choose a smaller rank, batch or sequence.`,
        { cause },
      );
    }
    const tensors = new Map<TensorRef, Tensor>();
    for (const { ref, slab, offset } of this.#placements) {
      const buffer = slabs[slab];
      if (buffer) tensors.set(ref, { ...ref, elements: ref.bytes / 4, buffer, offset });
    }
    return new Arena(gpu, slabs, tensors, this.bytes);
  }
}

export type TypedArray = Float32Array | Uint32Array | Int32Array;

function notPlanned(ref: TensorRef): never {
  throw new GpuError('shape', `${ref.name} belongs to another arena.`);
}

/** Allocated tensors. */
export class Arena implements TensorSource {
  readonly bytes: number;
  readonly #gpu: Gpu;
  readonly #slabs: readonly GPUBuffer[];
  readonly #tensors: ReadonlyMap<TensorRef, Tensor>;

  constructor(gpu: Gpu, slabs: readonly GPUBuffer[], tensors: ReadonlyMap<TensorRef, Tensor>, bytes: number) {
    this.#gpu = gpu;
    this.#slabs = slabs;
    this.#tensors = tensors;
    this.bytes = bytes;
  }

  /** Throws GpuError 'shape' for a tensor that was planned elsewhere. */
  get(ref: TensorRef): Tensor {
    return this.#tensors.get(ref) ?? notPlanned(ref);
  }

  write(tensor: Tensor, data: TypedArray): void {
    writeTensor(this.#gpu, tensor, data);
  }

  read(tensor: Tensor): Promise<Float32Array> {
    return readTensor(this.#gpu, tensor);
  }

  destroy(): void {
    for (const slab of this.#slabs) this.#gpu.destroyBuffer(slab);
  }
}

/** Queues an upload; creates nothing. Throws GpuError 'shape' when the number of elements differs. */
export function writeTensor(gpu: Gpu, tensor: Tensor, data: TypedArray): void {
  if (data.length !== tensor.elements) {
    throw new GpuError('shape', `${tensor.name} holds ${tensor.elements} elements, not ${data.length}.`);
  }
  gpu.device.queue.writeBuffer(
    tensor.buffer,
    tensor.offset,
    data.buffer as ArrayBuffer,
    data.byteOffset,
    data.byteLength,
  );
}

/** Reads a tensor back through a staging buffer of its own: for set-up, results and tests, not for the training loop. */
export async function readTensor(gpu: Gpu, tensor: Tensor): Promise<Float32Array> {
  const staging = gpu.createBuffer(
    `read ${tensor.name}`,
    tensor.bytes,
    GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  );
  try {
    const encoder = gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(tensor.buffer, tensor.offset, staging, 0, tensor.bytes);
    gpu.submit([encoder.finish()]);
    await mapForReading(staging);
    return new Float32Array(staging.getMappedRange().slice(0));
  } finally {
    gpu.destroyBuffer(staging);
  }
}

/** Maps a buffer, turning a lost device into GpuError 'device-lost'. */
export async function mapForReading(buffer: GPUBuffer): Promise<void> {
  try {
    await buffer.mapAsync(GPUMapMode.READ);
  } catch (cause) {
    throw new GpuError('device-lost', 'The GPU was lost while its results were read back.', { cause });
  }
}
