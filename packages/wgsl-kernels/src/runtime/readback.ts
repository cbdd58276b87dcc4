// Results come back late: a ring of staging buffers made once, so that the training loop neither waits nor creates.
import { mapForReading } from './arena.ts';
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import type { Tensor } from './tensor.ts';

interface Slot {
  readonly buffer: GPUBuffer;
  /** The reading in progress; null when the slot is free. */
  reading: Promise<Float32Array> | null;
}

export class ReadbackRing {
  readonly #gpu: Gpu;
  readonly #slots: Slot[];
  readonly #bytes: number;
  #next = 0;

  /** @param bytes size of the largest tensor to come; @param depth how many may be on their way */
  constructor(gpu: Gpu, bytes: number, depth: number) {
    this.#gpu = gpu;
    this.#bytes = bytes;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    this.#slots = Array.from({ length: depth }, (_, i) => ({
      buffer: gpu.createBuffer(`readback ${i}`, bytes, usage),
      reading: null,
    }));
  }

  /** Resolves when {@link push} has a free slot: at once, or when the oldest reading is done. Rejects as that reading did. */
  async whenFree(): Promise<void> {
    await this.#slots[this.#next]?.reading;
  }

  /**
   * Copies the tensor as it stands after everything submitted so far; resolves with its content. Call {@link whenFree}
   * first. Rejects with GpuError 'device-lost'; throws 'shape' for a tensor too large, 'validation' when no slot is free.
   */
  push(tensor: Tensor): Promise<Float32Array> {
    const slot = this.#slots[this.#next];
    if (tensor.bytes > this.#bytes)
      throw new GpuError('shape', `${tensor.name} is larger than the ring's ${this.#bytes} bytes.`);
    if (!slot || slot.reading !== null)
      throw new GpuError('validation', 'Every slot of the readback ring is busy; await whenFree() first.');
    this.#next = (this.#next + 1) % this.#slots.length;
    const encoder = this.#gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(tensor.buffer, tensor.offset, slot.buffer, 0, tensor.bytes);
    this.#gpu.submit([encoder.finish()]);
    const reading = mapForReading(slot.buffer)
      .then(() => {
        const values = new Float32Array(slot.buffer.getMappedRange(0, tensor.bytes).slice(0));
        slot.buffer.unmap();
        return values;
      })
      .finally(() => {
        slot.reading = null;
      });
    slot.reading = reading;
    return reading;
  }

  destroy(): void {
    for (const { buffer } of this.#slots) this.#gpu.destroyBuffer(buffer);
  }
}
