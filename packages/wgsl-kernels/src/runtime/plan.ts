// A step is a plan: a list of dispatches and clears recorded once, with its pipelines, bind groups and uniforms
// made at recording, and replayed as often as wanted. Replaying creates nothing but command buffers.
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import { type PipelineKey, pipelineFor, type ShaderSource } from './shader.ts';
import { BINDING_ALIGNMENT, type Tensor } from './tensor.ts';

/** One dispatch of a kernel. */
export interface KernelCall {
  readonly name: string;
  readonly shader: ShaderSource;
  readonly entryPoint: string;
  /** Compile-time constants; each distinct set is a pipeline of its own, so sizes belong in `uniforms`. */
  readonly constants?: Readonly<Record<string, number>>;
  /** Bound in order to @binding(1), @binding(2) …; @binding(0) is the uniform `params`. */
  readonly bindings: readonly Tensor[];
  /** The @binding of each tensor, for entry points that use only some of their shader's; 1, 2, 3 … when left out. */
  readonly bindingSlots?: readonly number[];
  readonly uniforms: ArrayBuffer;
  readonly workgroups: readonly [x: number, y: number, z: number];
  /** Floating-point operations of this call; a multiply-add is two. */
  readonly flops: number;
  /** Bytes this call must move at least. */
  readonly bytes: number;
}

/** WebGPU's default limit of workgroups in one dimension. */
const MAX_WORKGROUPS = 65_535;

/** Folds `count` workgroups into x and y. Shaders take their place as `wg.y * groups.x + wg.x` and return beyond the end. */
export function foldWorkgroups(count: number): [number, number, number] {
  if (count <= MAX_WORKGROUPS) return [Math.max(1, count), 1, 1];
  const rows = Math.ceil(count / MAX_WORKGROUPS);
  if (rows > MAX_WORKGROUPS) throw new GpuError('shape', `${count} workgroups are more than one dispatch can hold.`);
  return [Math.ceil(count / rows), rows, 1];
}

/** Bytes of uniforms of one call in a plan; offsets must be multiples of WebGPU's default alignment. */
const uniformSlot = (call: KernelCall): number =>
  Math.ceil(call.uniforms.byteLength / BINDING_ALIGNMENT) * BINDING_ALIGNMENT;

/** Exact bytes of the buffer in which a plan of these calls keeps its uniforms. */
export const uniformBytes = (calls: readonly KernelCall[]): number =>
  Math.max(
    BINDING_ALIGNMENT,
    calls.reduce((sum, call) => sum + uniformSlot(call), 0),
  );

type Item = { readonly kind: 'call'; readonly call: KernelCall } | { readonly kind: 'clear'; readonly tensor: Tensor };

export class PlanRecorder {
  readonly #gpu: Gpu;
  readonly #items: Item[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  call(...calls: KernelCall[]): void {
    for (const call of calls) this.#items.push({ kind: 'call', call });
  }

  clear(tensor: Tensor): void {
    this.#items.push({ kind: 'clear', tensor });
  }

  /**
   * Compiles what is new, all at once, makes every bind group and encodes everything once without running it, since a plan
   * that cannot run must be found out here: replaying tells errors to nobody. Throws GpuError 'shader' or 'validation'.
   */
  async finish(onProgress?: (done: number, total: number) => void): Promise<Plan> {
    const gpu = this.#gpu;
    const calls = this.#items.flatMap((item) => (item.kind === 'call' ? [item.call] : []));
    const keys = calls.map(
      (call): PipelineKey => ({ shader: call.shader, entryPoint: call.entryPoint, constants: call.constants ?? {} }),
    );
    const distinct = [...new Set(keys.map((key) => pipelineFor(gpu, key)))];
    let done = 0;
    await Promise.all(
      distinct.map((pipeline) =>
        pipeline.then(() => {
          done += 1;
          onProgress?.(done, distinct.length);
        }),
      ),
    );
    const pipelines = await Promise.all(keys.map((key) => pipelineFor(gpu, key)));

    const bytes = uniformBytes(calls);
    const uniforms = gpu.createBuffer('plan uniforms', bytes, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
    const content = new Uint8Array(bytes);
    const groups: GPUBindGroup[] = [];
    gpu.device.pushErrorScope('validation');
    let offset = 0;
    for (const [i, call] of calls.entries()) {
      const pipeline = pipelines[i];
      if (!pipeline) continue;
      content.set(new Uint8Array(call.uniforms), offset);
      const entries: GPUBindGroupEntry[] = [
        { binding: 0, resource: { buffer: uniforms, offset, size: call.uniforms.byteLength } },
      ];
      for (const [j, tensor] of call.bindings.entries()) {
        entries.push({
          binding: call.bindingSlots?.[j] ?? j + 1,
          resource: { buffer: tensor.buffer, offset: tensor.offset, size: tensor.bytes },
        });
      }
      groups.push(gpu.createBindGroup({ label: call.name, layout: pipeline.getBindGroupLayout(0), entries }));
      offset += uniformSlot(call);
    }
    gpu.device.queue.writeBuffer(uniforms, 0, content);
    const plan = new Plan(gpu, this.#items, pipelines, groups, uniforms);
    plan.encodePart(0);
    const error = await gpu.device.popErrorScope();
    if (error) {
      plan.destroy();
      throw new GpuError('validation', `A kernel was bound wrongly: ${error.message}`, { cause: error });
    }
    return plan;
  }
}

export class Plan {
  readonly calls: readonly KernelCall[];
  readonly flops: number;
  readonly bytes: number;
  readonly #gpu: Gpu;
  readonly #items: readonly Item[];
  readonly #pipelines: readonly GPUComputePipeline[];
  readonly #groups: readonly GPUBindGroup[];
  readonly #uniforms: GPUBuffer;
  #submits = 1;

  constructor(
    gpu: Gpu,
    items: readonly Item[],
    pipelines: readonly GPUComputePipeline[],
    groups: readonly GPUBindGroup[],
    uniforms: GPUBuffer,
  ) {
    this.#gpu = gpu;
    this.#items = items;
    this.#pipelines = pipelines;
    this.#groups = groups;
    this.#uniforms = uniforms;
    this.calls = items.flatMap((item) => (item.kind === 'call' ? [item.call] : []));
    this.flops = this.calls.reduce((sum, call) => sum + call.flops, 0);
    this.bytes = this.calls.reduce((sum, call) => sum + call.bytes, 0);
  }

  get dispatches(): number {
    return this.calls.length;
  }

  /** Command buffers one run is cut into. */
  get submits(): number {
    return this.#submits;
  }

  /** Cuts a run that takes `milliseconds` into submits of about `target`, so that the GPU stays free for others between. */
  splitFor(milliseconds: number, target = 100): void {
    this.#submits = Math.max(1, Math.min(Math.ceil(milliseconds / target), this.calls.length));
  }

  /** Encodes and submits everything once. Throws GpuError 'device-lost' on a device that is gone. */
  run(): void {
    for (let part = 0; part < this.#submits; part += 1) this.runPart(part);
  }

  /** One of the {@link submits} parts of a run, so that the caller can yield between them. */
  runPart(part: number): void {
    if (this.#gpu.isLost())
      throw new GpuError('device-lost', 'The GPU was lost. Open a new device and go on from the last snapshot.');
    const { commands, dispatches } = this.encodePart(part);
    this.#gpu.submit([commands]);
    this.#gpu.counters.dispatches += dispatches;
  }

  /** The commands of one part, and the dispatches among them. */
  encodePart(part: number): { commands: GPUCommandBuffer; dispatches: number } {
    const share = this.#items.length / this.#submits;
    const begin = Math.round(part * share);
    const end = Math.round((part + 1) * share);
    const encoder = this.#gpu.device.createCommandEncoder();
    let pass: GPUComputePassEncoder | null = null;
    const first = this.#items.slice(0, begin).filter((item) => item.kind === 'call').length;
    let index = first;
    for (const item of this.#items.slice(begin, end)) {
      if (item.kind === 'call') {
        pass ??= encoder.beginComputePass();
        this.#dispatch(pass, item.call, index);
        index += 1;
        continue;
      }
      pass?.end();
      pass = null;
      encoder.clearBuffer(item.tensor.buffer, item.tensor.offset, item.tensor.bytes);
    }
    pass?.end();
    return { commands: encoder.finish(), dispatches: index - first };
  }

  #dispatch(pass: GPUComputePassEncoder, call: KernelCall, index: number): void {
    const pipeline = this.#pipelines[index];
    const group = this.#groups[index];
    if (!pipeline || !group) throw new GpuError('validation', `${call.name} was never recorded.`);
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...call.workgroups);
  }

  /** Runs call `index` alone inside an own pass, with timestamps when given: for the profiler. */
  encodeAlone(encoder: GPUCommandEncoder, index: number, timestampWrites?: GPUComputePassTimestampWrites): void {
    const call = this.calls[index];
    if (!call) return;
    const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    this.#dispatch(pass, call, index);
    pass.end();
  }

  /** Frees the uniforms. The tensors belong to their arena. */
  destroy(): void {
    this.#gpu.destroyBuffer(this.#uniforms);
  }
}
