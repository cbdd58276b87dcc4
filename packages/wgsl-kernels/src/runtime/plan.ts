// A step is a plan: a list of dispatches and clears recorded once, with its pipelines, bind groups and uniforms
// made at recording, and replayed as often as wanted. Replaying creates nothing but command buffers. The first runs are
// measured: they learn what each call takes, cut those that would hold the GPU for long, and divide a run into submits.
import { type KernelCall, storageEntries } from './call.ts';
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';
import { evenParts, groupPieces, piecesOf } from './pacing.ts';
import { compileAll } from './shader.ts';
import { BINDING_ALIGNMENT, type Tensor } from './tensor.ts';
import { chooseVariants } from './tuner.ts';

/** Bytes of uniforms of one call in a plan; offsets must be multiples of WebGPU's default alignment. */
const uniformSlot = (call: KernelCall): number =>
  Math.ceil(call.uniforms.byteLength / BINDING_ALIGNMENT) * BINDING_ALIGNMENT;

/** Pieces that a plan has room for, beyond one for every call: so many, or two for every call that can be cut. */
const LEAST_SPARE_PIECES = 64;
const SPARE_PIECES = 2;

/** Bytes of uniforms of one spare piece, and the number of these. */
function sparePieces(calls: readonly KernelCall[]): { slot: number; count: number } {
  const cuttable = calls.filter(({ firstGroup }) => firstGroup !== undefined);
  const slot = cuttable.reduce((most, call) => Math.max(most, uniformSlot(call)), 0);
  return { slot, count: slot === 0 ? 0 : Math.max(LEAST_SPARE_PIECES, SPARE_PIECES * cuttable.length) };
}

/** Exact bytes of the buffer in which a plan of these calls keeps its uniforms. */
export function uniformBytes(calls: readonly KernelCall[]): number {
  const { slot, count } = sparePieces(calls);
  return Math.max(
    BINDING_ALIGNMENT,
    calls.reduce((sum, call) => sum + uniformSlot(call), slot * count),
  );
}

/** Compiles what these calls need and is not compiled yet, all at once. Throws GpuError 'shader'. */
export const compileCalls = (
  gpu: Gpu,
  calls: readonly KernelCall[],
  onProgress?: (done: number, total: number) => void,
): Promise<GPUComputePipeline[]> =>
  compileAll(
    gpu,
    calls.map(({ shader, entryPoint, constants = {} }) => ({ shader, entryPoint, constants })),
    onProgress,
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
    const calls = await chooseVariants(
      gpu,
      this.#items.flatMap((item) => (item.kind === 'call' ? [item.call] : [])),
    );
    for (const { name, firstGroup, workgroups } of calls) {
      if (firstGroup !== undefined && workgroups[2] !== 1)
        throw new GpuError('validation', `${name} can only be cut when its workgroups are folded into x and y.`);
    }
    const pipelines = await compileCalls(gpu, calls, onProgress);
    const bytes = uniformBytes(calls);
    const uniforms = gpu.createBuffer('plan uniforms', bytes, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
    const content = new Uint8Array(bytes);
    const recorded: RecordedCall[] = [];
    gpu.device.pushErrorScope('validation');
    let offset = 0;
    for (const [i, call] of calls.entries()) {
      const pipeline = pipelines[i];
      if (!pipeline) continue;
      content.set(new Uint8Array(call.uniforms), offset);
      recorded.push({ call, pipeline, group: bindCall(gpu, call, pipeline, uniforms, offset) });
      offset += uniformSlot(call);
    }
    gpu.device.queue.writeBuffer(uniforms, 0, content);
    const plan = new Plan(gpu, this.#items, recorded, { buffer: uniforms, spareAt: offset });
    plan.encodePart(0);
    const error = await gpu.device.popErrorScope();
    if (error) {
      plan.destroy();
      throw new GpuError('validation', `A kernel was bound wrongly: ${error.message}`, { cause: error });
    }
    return plan;
  }
}

function bindCall(
  gpu: Gpu,
  call: KernelCall,
  pipeline: GPUComputePipeline,
  uniforms: GPUBuffer,
  offset: number,
): GPUBindGroup {
  const entries: GPUBindGroupEntry[] = [
    { binding: 0, resource: { buffer: uniforms, offset, size: call.uniforms.byteLength } },
    ...storageEntries(gpu, call),
  ];
  return gpu.createBindGroup({ label: call.name, layout: pipeline.getBindGroupLayout(0), entries });
}

interface RecordedCall {
  readonly call: KernelCall;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
}

/** One dispatch: a call, or a piece of one. */
interface Dispatch {
  readonly kind: 'dispatch';
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [x: number, y: number, z: number];
  /** Its part of the call's workgroups. */
  readonly share: number;
  /** Position of its call. */
  readonly of: number;
}

type Operation = Dispatch | { readonly kind: 'clear'; readonly tensor: Tensor };

/** How long a plan may hold the GPU at a time, in milliseconds. */
export interface Pace {
  /** No dispatch that can be cut takes longer: as long as a page may wait for the GPU without dropping frames. */
  readonly dispatch: number;
  /** A submit takes about this long, where a run takes longer. */
  readonly submit: number;
}

const GOOD_GUEST: Pace = { dispatch: 50, submit: 125 };
/** Runs that are measured: a driver may compile while a kernel runs for the first time, so the shorter of two tells. */
const MEASURED_RUNS = 2;
/** Beside what a call computes and moves, so that the time of a tiny call says nothing about a large one. */
const COST_OF_A_CALL = 1e6;
/** Operations that take as long as moving a byte, roughly, on any device: for guessing only. */
const FLOPS_A_BYTE = 8;

const costOf = ({ flops, bytes }: KernelCall): number => Math.max(flops, FLOPS_A_BYTE * bytes) + COST_OF_A_CALL;

export class Plan {
  readonly calls: readonly KernelCall[];
  readonly flops: number;
  readonly bytes: number;
  readonly #gpu: Gpu;
  readonly #items: readonly Item[];
  readonly #recorded: readonly RecordedCall[];
  readonly #uniforms: { readonly buffer: GPUBuffer; readonly spareAt: number };
  /** Calls of one kind have the same pipeline, size and cost, and so take the same time. By call. */
  readonly #kinds: readonly number[];
  /** Shortest time of each kind, in milliseconds; Infinity before it was measured. */
  readonly #kindMs: number[];
  /** Dispatches of each call: itself, or its pieces. */
  readonly #dispatches: (readonly Dispatch[])[];
  #operations: readonly Operation[] = [];
  /** Operations before which a submit ends. */
  #ends: readonly number[] = [];
  #spareUsed = 0;
  #measuredRuns = 0;
  /** Shortest time of a measured run, without what the waiting took. */
  #runMs = Number.POSITIVE_INFINITY;
  #encodeMs = 0;

  constructor(
    gpu: Gpu,
    items: readonly Item[],
    recorded: readonly RecordedCall[],
    uniforms: { readonly buffer: GPUBuffer; readonly spareAt: number },
  ) {
    this.#gpu = gpu;
    this.#items = items;
    this.#recorded = recorded;
    this.#uniforms = uniforms;
    this.calls = recorded.map(({ call }) => call);
    this.flops = this.calls.reduce((sum, call) => sum + call.flops, 0);
    this.bytes = this.calls.reduce((sum, call) => sum + call.bytes, 0);
    const kinds = new Map<string, number>();
    const pipelines = [...new Set(recorded.map(({ pipeline }) => pipeline))];
    this.#kinds = recorded.map(({ call, pipeline }) => {
      const key = [pipelines.indexOf(pipeline), ...call.workgroups, call.flops, call.bytes].join();
      const kind = kinds.get(key) ?? kinds.size;
      kinds.set(key, kind);
      return kind;
    });
    this.#kindMs = Array.from({ length: kinds.size }, () => Number.POSITIVE_INFINITY);
    this.#dispatches = recorded.map((_, i) => this.#whole(i));
    this.#arrange(1);
  }

  /** Dispatches of one run. */
  get dispatches(): number {
    return this.#dispatches.reduce((sum, pieces) => sum + pieces.length, 0);
  }

  /** Dispatches of call `index`: one, or its pieces. */
  dispatchesOf(index: number): number {
    return this.#dispatches[index]?.length ?? 0;
  }

  /** Command buffers one run is cut into. */
  get submits(): number {
    return this.#ends.length;
  }

  /** Milliseconds this thread has spent so far on encoding and submitting. */
  get encodeMilliseconds(): number {
    return this.#encodeMs;
  }

  /** Whether {@link runMeasured} has run often enough; from then on a run creates nothing. */
  get isMeasured(): boolean {
    return this.#measuredRuns >= MEASURED_RUNS;
  }

  /** Calls of one kind take the same time: a number for each call, equal for those. */
  get kinds(): readonly number[] {
    return this.#kinds;
  }

  /** Milliseconds of call `index` as measured, pieces together; null before that. */
  callMilliseconds(index: number): number | null {
    const milliseconds = this.#kindMs[this.#kinds[index] ?? -1] ?? Number.POSITIVE_INFINITY;
    return Number.isFinite(milliseconds) ? milliseconds : null;
  }

  /**
   * Cuts a run that takes `milliseconds` into submits of about `target`, so that the GPU stays free for others between. By
   * the times of the calls where they are known, else by what they compute and move.
   */
  splitFor(milliseconds: number, target = GOOD_GUEST.submit): void {
    this.#arrange(Math.max(1, Math.round(milliseconds / target)));
  }

  /** Encodes and submits everything once. Throws GpuError 'device-lost' on a device that is gone. */
  run(): void {
    for (let part = 0; part < this.submits; part += 1) this.runPart(part);
  }

  /** One of the {@link submits} parts of a run, so that the caller can yield between them. */
  runPart(part: number): void {
    this.#submit(this.#operations.slice(part === 0 ? 0 : this.#ends[part - 1], this.#ends[part]));
  }

  /** The commands of one part, and the dispatches among them. */
  encodePart(part: number): { commands: GPUCommandBuffer; dispatches: number } {
    return this.#encode(this.#operations.slice(part === 0 ? 0 : this.#ends[part - 1], this.#ends[part]));
  }

  /**
   * Runs everything once as {@link run} does, but slowly: one call of each kind is timed alone, everything is submitted in
   * short parts and waited for. A call that would take longer than the pace allows is cut into several dispatches, where its
   * kernel allows that. After the second such run pieces and submits are settled. Nothing else may use the queue meanwhile.
   * Throws GpuError 'device-lost'.
   */
  async runMeasured(pace: Pace = GOOD_GUEST): Promise<void> {
    const idle = Math.min(await this.#time([]), await this.#time([]), await this.#time([]));
    const timed = new Set<number>();
    let waiting: Operation[] = [];
    let waitingMs = 0;
    let total = 0;
    const time = async (operations: readonly Operation[]) => {
      const milliseconds = Math.max(0, (await this.#time(operations)) - idle);
      total += milliseconds;
      return milliseconds;
    };
    const flush = async () => {
      if (waiting.length > 0) await time(waiting);
      waiting = [];
      waitingMs = 0;
    };
    let index = 0;
    for (const item of this.#items) {
      if (item.kind === 'clear') {
        waiting.push(item);
        continue;
      }
      const kind = this.#kinds[index] ?? 0;
      if (!timed.has(kind)) {
        timed.add(kind);
        await flush();
        if (this.#measuredRuns === 0) this.#cutKind(kind, Math.ceil(this.#guess(index) / pace.dispatch));
        let milliseconds = 0;
        for (const piece of this.#dispatches[index] ?? []) milliseconds += await time([piece]);
        this.#kindMs[kind] = Math.min(this.#kindMs[kind] ?? Number.POSITIVE_INFINITY, milliseconds);
      } else {
        for (const piece of this.#dispatches[index] ?? []) {
          waiting.push(piece);
          waitingMs += piece.share * (this.#kindMs[kind] ?? 0);
          if (waitingMs >= pace.dispatch) await flush();
        }
      }
      index += 1;
    }
    await flush();
    this.#measuredRuns += 1;
    this.#runMs = Math.min(this.#runMs, total);
    if (this.isMeasured) this.#settle(pace);
  }

  /** Milliseconds until these operations, submitted now, are done. */
  async #time(operations: readonly Operation[]): Promise<number> {
    const began = performance.now();
    this.#submit(operations);
    try {
      await this.#gpu.device.queue.onSubmittedWorkDone();
    } catch (cause) {
      throw new GpuError('device-lost', 'The GPU was lost while it was measured.', { cause });
    }
    return performance.now() - began;
  }

  /** What call `index` may take, from calls of the same pipeline, else from the costliest call measured so far; 0 at first. */
  #guess(index: number): number {
    const target = this.#recorded[index];
    if (!target) return 0;
    let best: { same: boolean; cost: number; milliseconds: number } | null = null;
    for (const [i, { call, pipeline }] of this.#recorded.entries()) {
      const milliseconds = this.callMilliseconds(i);
      if (milliseconds === null) continue;
      const found = { same: pipeline === target.pipeline, cost: costOf(call), milliseconds };
      if (!best || (found.same === best.same ? found.cost > best.cost : found.same)) best = found;
    }
    return best ? (best.milliseconds * costOf(target.call)) / best.cost : 0;
  }

  #whole(index: number): Dispatch[] {
    const recorded = this.#recorded[index];
    if (!recorded) return [];
    const { call, pipeline, group } = recorded;
    return [{ kind: 'dispatch', pipeline, group, workgroups: call.workgroups, share: 1, of: index }];
  }

  /** Cuts every call of a kind, as far as there is room for pieces. */
  #cutKind(kind: number, pieces: number): void {
    for (const [i, each] of this.#kinds.entries()) if (each === kind) this.#cut(i, pieces);
  }

  #cut(index: number, wanted: number): void {
    const recorded = this.#recorded[index];
    if (recorded?.call.firstGroup === undefined) return;
    const { call, pipeline } = recorded;
    const { firstGroup = 0 } = call;
    const { slot, count } = sparePieces(this.calls);
    const room = count - this.#spareUsed;
    const total = call.workgroups[0] * call.workgroups[1];
    const pieces = groupPieces(call.workgroups[0], call.workgroups[1], Math.min(wanted, room + 1));
    if (pieces.length < 2) return;
    this.#dispatches[index] = pieces.map(({ first, workgroups }, i): Dispatch => {
      const share = (workgroups[0] * workgroups[1]) / total;
      const place = { kind: 'dispatch', pipeline, workgroups, share, of: index } as const;
      // The first piece begins where the whole call does, so its uniforms are the call's own.
      if (i === 0) return { ...place, group: recorded.group };
      const offset = this.#uniforms.spareAt + slot * this.#spareUsed;
      this.#spareUsed += 1;
      const uniforms = call.uniforms.slice(0);
      new DataView(uniforms).setUint32(firstGroup, first, true);
      this.#gpu.device.queue.writeBuffer(this.#uniforms.buffer, offset, uniforms);
      return { ...place, group: bindCall(this.#gpu, call, pipeline, this.#uniforms.buffer, offset) };
    });
  }

  /** Cuts anew, by the times now known, and divides a run into submits. */
  #settle({ dispatch: longest, submit }: Pace): void {
    this.#spareUsed = 0;
    const wanted = piecesOf(
      this.calls.map((call, i) => ({
        milliseconds: this.callMilliseconds(i) ?? 0,
        most: call.firstGroup === undefined ? 1 : call.workgroups[0] * call.workgroups[1],
      })),
      longest,
      sparePieces(this.calls).count,
    );
    for (const [i, pieces] of wanted.entries()) {
      this.#dispatches[i] = this.#whole(i);
      this.#cut(i, pieces);
    }
    this.splitFor(this.#runMs, submit);
  }

  /** Lists all operations, and divides them into `submits` parts that take about equally long. */
  #arrange(submits: number): void {
    let index = 0;
    this.#operations = this.#items.flatMap((item): readonly Operation[] => {
      if (item.kind === 'clear') return [item];
      index += 1;
      return this.#dispatches[index - 1] ?? [];
    });
    const isKnown = this.#kindMs.every((milliseconds) => Number.isFinite(milliseconds));
    const weights = this.#operations.map((operation) => {
      if (operation.kind === 'clear') return 0;
      const call = this.calls[operation.of];
      const whole = isKnown ? this.callMilliseconds(operation.of) : call && costOf(call);
      return operation.share * (whole ?? 0);
    });
    this.#ends = evenParts(weights, Math.min(submits, this.dispatches));
  }

  #submit(operations: readonly Operation[]): void {
    if (this.#gpu.isLost())
      throw new GpuError('device-lost', 'The GPU was lost. Open a new device and go on from the last snapshot.');
    const began = performance.now();
    const { commands, dispatches } = this.#encode(operations);
    this.#gpu.submit([commands]);
    this.#gpu.counters.dispatches += dispatches;
    this.#encodeMs += performance.now() - began;
  }

  #encode(operations: readonly Operation[]): { commands: GPUCommandBuffer; dispatches: number } {
    const encoder = this.#gpu.device.createCommandEncoder();
    let pass: GPUComputePassEncoder | null = null;
    let dispatches = 0;
    for (const operation of operations) {
      if (operation.kind === 'dispatch') {
        pass ??= encoder.beginComputePass();
        dispatch(pass, operation);
        dispatches += 1;
        continue;
      }
      pass?.end();
      pass = null;
      const { tensor } = operation;
      encoder.clearBuffer(tensor.buffer, tensor.offset, tensor.bytes);
    }
    pass?.end();
    return { commands: encoder.finish(), dispatches };
  }

  /**
   * Runs call `index` alone, `times` times, inside an own pass, with timestamps when given: for the profiler.
   */
  encodeAlone(
    encoder: GPUCommandEncoder,
    index: number,
    { times = 1, timestampWrites }: { times?: number; timestampWrites?: GPUComputePassTimestampWrites } = {},
  ): void {
    const pieces = this.#dispatches[index] ?? [];
    const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    for (let i = 0; i < times; i += 1) for (const piece of pieces) dispatch(pass, piece);
    pass.end();
  }

  /** Frees the uniforms. The tensors belong to their arena. */
  destroy(): void {
    this.#gpu.destroyBuffer(this.#uniforms.buffer);
  }
}

function dispatch(pass: GPUComputePassEncoder, { pipeline, group, workgroups }: Dispatch): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...workgroups);
}
