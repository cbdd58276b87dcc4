// Memory is planned first and allocated after, exactly as planned. A planned tensor is symbolic: it has a shape and no
// buffer, and kernel calls can be built from it. Tensors declared `shared` live only from the first call that binds them
// to the last, and those whose lives do not overlap get the same bytes. Everything is packed into slabs no larger than
// what one binding may cover. Kernels bind every tensor as read-write storage, because WebGPU forbids one buffer to be
// both read-only and writable in a dispatch, and tensors of one dispatch may share a slab.

import type { KernelCall } from './call.ts';
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import { alignBytes, type Life, type Packable, type Placed, packByLife } from './packing.ts';
import { type ElementType, elementsOf, type Tensor } from './tensor.ts';

/** The default limit of a storage binding, and so of a slab: 128 MiB. */
export const SLAB_BYTES = 128 * 1024 * 1024;

/** A planned tensor: kernel calls are built from it, an {@link Arena} gives it a buffer. */
export type TensorRef = Tensor;

/** Where planned tensors are looked up: an arena, or a plan that only describes them. */
export interface TensorSource {
  /** Throws GpuError 'shape' for a tensor that was planned elsewhere. */
  get(ref: TensorRef): Tensor;
}

interface Planned {
  readonly ref: TensorRef;
  readonly shared: boolean;
}

export class ArenaPlan {
  readonly #slabLimit: number;
  /** By the symbolic buffer of the tensor, which its views have too. */
  readonly #planned = new Map<GPUBuffer, Planned>();
  /** null until {@link shareMemory}: then every tensor lives always. */
  #lives: ReadonlyMap<GPUBuffer, Life> | null = null;
  #packed: { places: ReadonlyMap<GPUBuffer, Placed>; slabs: readonly number[] } | null = null;

  /** @param slabLimit largest buffer in bytes; at most the device's binding limit */
  constructor(slabLimit: number = SLAB_BYTES) {
    this.#slabLimit = slabLimit;
  }

  /**
   * Plans a tensor. A `shared` one holds its content only between the first and the last call given to
   * {@link shareMemory} that binds it, and the first of them must write all that is read later. Throws GpuError 'shape'
   * for an empty tensor or one larger than a slab.
   */
  tensor(
    name: string,
    shape: readonly number[],
    type: ElementType = 'f32',
    { shared = false }: { shared?: boolean } = {},
  ): TensorRef {
    const elements = elementsOf(shape);
    const bytes = 4 * elements;
    if (!(bytes > 0) || !shape.every((size) => Number.isInteger(size))) {
      throw new GpuError('shape', `${name}: [${shape}] is not the shape of a tensor.`);
    }
    if (bytes > this.#slabLimit) {
      throw new GpuError(
        'shape',
        `${name} [${shape}] takes ${bytes} bytes; a tensor may have at most ${this.#slabLimit}.`,
      );
    }
    const buffer = Object.freeze({ label: name }) as GPUBuffer;
    const ref: TensorRef = { name, type, shape: [...shape], elements, bytes, buffer, offset: 0 };
    this.#planned.set(buffer, { ref, shared });
    this.#packed = null;
    return ref;
  }

  /**
   * Lets shared tensors whose lives among these calls, in their order, do not overlap lie in the same bytes. A shared one
   * that no call binds takes none.
   */
  shareMemory(calls: readonly KernelCall[]): void {
    const lives = new Map<GPUBuffer, Life>();
    for (const [i, { bindings }] of calls.entries()) {
      for (const { buffer } of bindings) {
        if (this.#planned.get(buffer)?.shared) lives.set(buffer, { first: lives.get(buffer)?.first ?? i, last: i });
      }
    }
    this.#lives = lives;
    this.#packed = null;
  }

  /** Exact bytes of the buffers that {@link allocate} creates. */
  get bytes(): number {
    return this.#pack().slabs.reduce((sum, size) => sum + size, 0);
  }

  /** Exact bytes of the part in which shared tensors lie. */
  get sharedBytes(): number {
    return this.bytes - this.rows().reduce((sum, { bytes, shared }) => sum + (shared ? 0 : bytes), 0);
  }

  /** Every tensor with the bytes it takes, padding included, in the order planned; shared ones take theirs together. */
  rows(): { name: string; bytes: number; shared: boolean }[] {
    return this.#items().map(({ name, bytes, life }) => ({ name, bytes: alignBytes(bytes), shared: life !== null }));
  }

  /** The tensors without memory, to describe kernel calls and count what they cost. Nothing of it can be recorded. */
  describe(): TensorSource {
    return { get: (ref) => (this.#planned.has(ref.buffer) ? ref : notPlanned(ref)) };
  }

  /** What takes memory. */
  #items(): (Packable<GPUBuffer> & { name: string })[] {
    return [...this.#planned].flatMap(([key, { ref, shared }]) => {
      const life = shared ? (this.#lives?.get(key) ?? null) : null;
      return shared && this.#lives && !life ? [] : [{ key, name: ref.name, bytes: ref.bytes, life }];
    });
  }

  #pack(): { places: ReadonlyMap<GPUBuffer, Placed>; slabs: readonly number[] } {
    this.#packed ??= packByLife(this.#items(), this.#slabLimit);
    return this.#packed;
  }

  /** Creates the buffers, zeroed. Throws GpuError 'out-of-memory', with nothing left allocated. */
  async allocate(gpu: Gpu): Promise<Arena> {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const { places, slabs: sizes } = this.#pack();
    const slabs: GPUBuffer[] = [];
    gpu.device.pushErrorScope('validation');
    gpu.device.pushErrorScope('out-of-memory');
    let thrown: unknown = null;
    try {
      for (const [i, bytes] of sizes.entries()) {
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
    const buffers = new Map<GPUBuffer, BufferPlace>();
    for (const [key, { slab, offset }] of places) {
      const buffer = slabs[slab];
      if (buffer) buffers.set(key, { buffer, offset });
    }
    return new Arena(gpu, slabs, buffers, this.bytes);
  }
}

interface BufferPlace {
  readonly buffer: GPUBuffer;
  readonly offset: number;
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
  readonly #places: ReadonlyMap<GPUBuffer, BufferPlace>;

  constructor(gpu: Gpu, slabs: readonly GPUBuffer[], places: ReadonlyMap<GPUBuffer, BufferPlace>, bytes: number) {
    this.#gpu = gpu;
    this.#slabs = slabs;
    this.#places = places;
    this.bytes = bytes;
  }

  /** A planned tensor, or a view of one, in its buffer. Throws GpuError 'shape' for a tensor that was planned elsewhere. */
  get(ref: TensorRef): Tensor {
    return this.#place(ref) ?? notPlanned(ref);
  }

  /** The calls with every tensor of this arena in its buffer; tensors of others stay as they are. */
  bind(calls: readonly KernelCall[]): KernelCall[] {
    return calls.map((call) => ({ ...call, bindings: call.bindings.map((tensor) => this.#place(tensor) ?? tensor) }));
  }

  #place(ref: TensorRef): Tensor | null {
    const place = this.#places.get(ref.buffer);
    return place ? { ...ref, buffer: place.buffer, offset: place.offset + ref.offset } : null;
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
