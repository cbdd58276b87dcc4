// Runs kernel calls on fresh tensors for a test. All tensors of a run share one buffer, as they do in an arena, with guard
// bands between them. Every run happens twice from the same start and must give the same bytes.
import type { TypedArray } from '../runtime/arena.ts';
import type { KernelCall } from '../runtime/call.ts';
import type { Gpu } from '../runtime/device.ts';
import { PlanRecorder } from '../runtime/plan.ts';
import { BINDING_ALIGNMENT, type ElementType, elementsOf, type Tensor } from '../runtime/tensor.ts';

/** A tensor of a run. Without `data` it starts as NaN everywhere, so that an element nobody writes is found out. */
export interface TensorInput {
  readonly shape: readonly number[];
  readonly data?: TypedArray;
  /** The calls may change it; any other tensor must keep its bytes. */
  readonly written?: boolean;
}

const GUARD = 0x7f5a_a5c3;

const typeOf = (data: TypedArray | undefined): ElementType =>
  data instanceof Uint32Array ? 'u32' : data instanceof Int32Array ? 'i32' : 'f32';

const bytesOf = (data: TypedArray): Uint32Array => new Uint32Array(data.buffer, data.byteOffset, data.length);

/**
 * Content of every tensor after `calls`. Throws Error when a guard band or a tensor not declared `written` changed, or
 * when a second run gave other bytes.
 */
export async function runKernel<Name extends string>(
  gpu: Gpu,
  inputs: Readonly<Record<Name, TensorInput>>,
  calls: (tensors: Readonly<Record<Name, Tensor>>) => KernelCall[],
): Promise<Record<Name, Float32Array>> {
  const names = Object.keys(inputs) as Name[];
  let end = BINDING_ALIGNMENT;
  const places = names.map((name) => {
    const offset = end;
    const bytes = 4 * elementsOf(inputs[name].shape);
    end = Math.ceil((offset + bytes) / BINDING_ALIGNMENT + 1) * BINDING_ALIGNMENT;
    return { name, offset, bytes, input: inputs[name] };
  });
  const start = new Uint32Array(end / 4).fill(GUARD);
  for (const { offset, bytes, input } of places) {
    const content = input.data ? bytesOf(input.data) : new Uint32Array(bytes / 4).fill(0x7fc0_0000);
    if (4 * content.length !== bytes) throw new Error(`${content.length} elements for a tensor [${input.shape}].`);
    start.set(content, offset / 4);
  }
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = gpu.createBuffer('test tensors', end, usage);
  const staging = gpu.createBuffer('test results', end, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  const tensors = Object.fromEntries(
    places.map(({ name, offset, bytes, input }): [string, Tensor] => [
      name,
      { name, type: typeOf(input.data), shape: input.shape, elements: bytes / 4, buffer, offset, bytes },
    ]),
  ) as Record<Name, Tensor>;
  const recorder = new PlanRecorder(gpu);
  recorder.call(...calls(tensors));
  const plan = await recorder.finish();
  const once = async (): Promise<Uint32Array> => {
    gpu.device.queue.writeBuffer(buffer, 0, start);
    plan.run();
    const encoder = gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, end);
    gpu.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const content = new Uint32Array(staging.getMappedRange().slice(0));
    staging.unmap();
    return content;
  };
  const first = await once();
  const second = await once();
  plan.destroy();
  gpu.destroyBuffer(buffer);
  gpu.destroyBuffer(staging);

  const owner = new Array<Name | null>(first.length).fill(null);
  for (const { name, offset, bytes } of places) owner.fill(name, offset / 4, (offset + bytes) / 4);
  for (const [i, bits] of first.entries()) {
    const name = owner[i] ?? null;
    if (second[i] !== bits) throw new Error(`${name ?? 'a guard band'}: two runs gave different bytes at word ${i}.`);
    if (bits === start[i] || (name !== null && inputs[name].written)) continue;
    throw new Error(name === null ? `A guard band was written at word ${i}.` : `${name} was written, but is an input.`);
  }
  return Object.fromEntries(
    places.map(({ name, offset, bytes }) => [name, new Float32Array(first.buffer, offset, bytes / 4)]),
  ) as Record<Name, Float32Array>;
}
