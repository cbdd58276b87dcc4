import { beforeAll, describe, expect, it } from 'vitest';
import { add } from '../kernels/add/add.ts';
import { openTestGpu } from '../testing/index.ts';
import { type Arena, ArenaPlan } from './arena.ts';
import { foldWorkgroups, type KernelCall } from './call.ts';
import type { Gpu } from './device.ts';
import { PlanRecorder, uniformBytes } from './plan.ts';
import { layOutParams, paramOffset, type ShaderSource } from './shader.ts';
import type { Tensor } from './tensor.ts';

/** x += 1 everywhere, folded as every element-wise kernel is; `broken` leaves a word out of it. */
const counting = (broken = false): ShaderSource => ({
  name: broken ? 'broken' : 'counting',
  code: `struct Params { count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = wg.y * groups.x + wg.x;
  if (i < params.count) {
    x[i] += ${broken ? 'nonsense' : 'f32(STEP)'};
  }
}
`,
});

/** The same where workgroups may be cut into several dispatches, and each may be given more to do. */
const cuttable: ShaderSource = {
  name: 'counting-cuttable',
  code: `struct Params { count: u32, loops: u32, firstGroup: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = params.firstGroup + wg.y * groups.x + wg.x;
  if (i >= params.count) {
    return;
  }
  var state = i;
  for (var k = 0u; k < params.loops; k++) {
    state = state * 1664525u + 1013904223u;
  }
  // True of one state in 2³², which none of these numbers of loops ends in often; the compiler cannot know.
  x[i] += f32(STEP) + select(0.0, 1.0, state == 0xffffffffu);
}
`,
};

describe('plan', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  async function tensors(...counts: number[]): Promise<{ arena: Arena; all: Tensor[] }> {
    const plan = new ArenaPlan();
    const refs = counts.map((count, i) => plan.tensor(`t${i}`, [count]));
    const arena = await plan.allocate(gpu);
    return { arena, all: refs.map((ref) => arena.get(ref)) };
  }

  function count(x: Tensor, shader = counting(), step = 1, loops = 1): KernelCall {
    return {
      name: 'count',
      shader,
      entryPoint: 'main',
      constants: { STEP: step },
      bindings: [x],
      uniforms: layOutParams(shader, shader === cuttable ? { count: x.elements, loops } : { count: x.elements }),
      ...(shader === cuttable ? { firstGroup: paramOffset(shader, 'firstGroup') } : {}),
      workgroups: foldWorkgroups(x.elements),
      flops: x.elements * loops,
      bytes: 2 * x.bytes,
    };
  }

  it('replays without creating a buffer, a bind group or a pipeline', async () => {
    const { arena, all } = await tensors(100, 100, 100);
    const [x, y, out] = all as [Tensor, Tensor, Tensor];
    arena.write(y, new Float32Array(100).fill(1));
    const recorder = new PlanRecorder(gpu);
    recorder.call(...add({ x, y, out }));
    recorder.call(...add({ x: out, y, out: x }));
    recorder.call(count(out));
    const plan = await recorder.finish();
    plan.run();
    expect(new Set(await arena.read(out))).toEqual(new Set([2]));
    const before = { ...gpu.counters };
    for (let i = 0; i < 10; i += 1) plan.run();
    expect(gpu.counters).toEqual({
      ...before,
      submits: before.submits + 10,
      dispatches: before.dispatches + 30,
    });
    expect(new Set(await arena.read(x))).toEqual(new Set([22]));
    expect(plan).toMatchObject({ dispatches: 3, flops: 300, bytes: 2 * 1200 + 800, submits: 1 });
    plan.destroy();
    arena.destroy();
  });

  it('makes each pipeline once per device, one for every set of constants', async () => {
    const { arena, all } = await tensors(10);
    const [x] = all as [Tensor];
    const shader = counting();
    const before = gpu.counters.pipelinesCreated;
    for (const steps of [[5, 6, 5], [6]]) {
      const recorder = new PlanRecorder(gpu);
      recorder.call(...steps.map((step) => count(x, shader, step)));
      const progress: [number, number][] = [];
      const plan = await recorder.finish((done, total) => progress.push([done, total]));
      expect(progress.at(-1)?.[0]).toBe(progress.at(-1)?.[1]);
      plan.run();
      plan.destroy();
    }
    expect(gpu.counters.pipelinesCreated - before).toBe(2);
    expect(new Set(await arena.read(x))).toEqual(new Set([22]));
    arena.destroy();
  });

  it('does the same in one submit and in many', async () => {
    const { arena, all } = await tensors(10);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.clear(x);
    for (let i = 0; i < 7; i += 1) recorder.call(count(x));
    const plan = await recorder.finish();
    for (const milliseconds of [1, 250, 10_000]) {
      plan.splitFor(milliseconds, 100);
      expect(plan.submits).toBe(Math.min(7, Math.ceil(milliseconds / 100)));
      const before = gpu.counters.submits;
      plan.run();
      expect(gpu.counters.submits - before).toBe(plan.submits);
      expect(new Set(await arena.read(x))).toEqual(new Set([7]));
    }
    plan.destroy();
    arena.destroy();
  });

  it('cuts by what calls cost while nothing was measured, and not by their number', async () => {
    const { arena, all } = await tensors(64);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    for (let i = 0; i < 9; i += 1) recorder.call({ ...count(x), flops: i === 0 ? 1e10 : 1 });
    const plan = await recorder.finish();
    plan.splitFor(200);
    expect(plan.submits).toBe(2);
    const parts = [0, 1].map((part) => plan.encodePart(part).dispatches);
    expect(parts).toEqual([1, 8]);
    plan.destroy();
    arena.destroy();
  });

  it.each([[9_600], [65_537]])('cuts calls of %i workgroups into pieces that do the same', async (size) => {
    const { arena, all } = await tensors(size, size);
    const [x, other] = all as [Tensor, Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.clear(x);
    recorder.clear(other);
    recorder.call(count(x, cuttable), count(other), count(x, cuttable));
    const before = gpu.counters.bufferBytes;
    const plan = await recorder.finish();
    expect(gpu.counters.bufferBytes - before).toBe(uniformBytes(plan.calls));
    expect(plan.dispatches).toBe(3);
    expect([plan.isMeasured, plan.callMilliseconds(0)]).toEqual([false, null]);
    // No software adapter is so fast that so many workgroups need not be cut at this pace; browsers tell time in tenths of a millisecond.
    const pace = { dispatch: 1e-6, submit: 1e-3 };
    const bytes: Float32Array[] = [];
    for (let i = 0; i < 2; i += 1) {
      await plan.runMeasured(pace);
      bytes.push(await arena.read(x), await arena.read(other));
    }
    expect(plan.isMeasured).toBe(true);
    expect(plan.dispatches).toBeGreaterThan(3);
    expect(plan.dispatches).toBeLessThanOrEqual(3 + 64);
    expect(plan.submits).toBe(plan.dispatches);
    expect(plan.callMilliseconds(0)).toBe(plan.callMilliseconds(2));
    const created = { ...gpu.counters };
    plan.run();
    expect(gpu.counters).toEqual({
      ...created,
      submits: created.submits + plan.submits,
      dispatches: created.dispatches + plan.dispatches,
    });
    bytes.push(await arena.read(x), await arena.read(other));
    for (const [i, content] of bytes.entries()) expect(new Set(content)).toEqual(new Set([i % 2 === 0 ? 2 : 1]));
    plan.splitFor(0);
    plan.run();
    expect(new Set(await arena.read(x))).toEqual(new Set([2]));
    expect(plan.submits).toBe(1);
    plan.destroy();
    expect(gpu.counters.bufferBytes).toBe(before);
    arena.destroy();
  });

  it('cuts a call that takes long, and no other', async () => {
    const { arena, all } = await tensors(64);
    const [x] = all as [Tensor];
    // As many loops as make a run of 64 workgroups long enough to be told from a short one, and no longer.
    const calls = async (loops: number) => {
      const recorder = new PlanRecorder(gpu);
      recorder.call(count(x, cuttable, 1, loops), count(x, cuttable));
      return await recorder.finish();
    };
    let [loops, long] = [1, 0];
    for (; long < 10 && loops < 2 ** 28; loops *= 4) {
      const plan = await calls(loops * 4);
      await plan.runMeasured();
      await plan.runMeasured();
      long = plan.callMilliseconds(0) ?? 0;
      plan.destroy();
    }
    const plan = await calls(loops);
    for (let i = 0; i < 2; i += 1) await plan.runMeasured({ dispatch: long / 4, submit: long / 8 });
    const pieces = plan.dispatches - 1;
    // Whatever else the machine does moves this by a factor of two.
    expect(pieces).toBeGreaterThanOrEqual(2);
    expect(pieces).toBeLessThanOrEqual(12);
    expect(plan.submits).toBeGreaterThanOrEqual(2);
    expect(plan.submits).toBeLessThanOrEqual(plan.dispatches);
    plan.destroy();
    arena.destroy();
  });

  it('cuts only what is folded into x and y', async () => {
    const { arena, all } = await tensors(8);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.call({ ...count(x, cuttable), workgroups: [2, 2, 2] });
    await expect(recorder.finish()).rejects.toMatchObject({ name: 'GpuError', code: 'validation' });
    arena.destroy();
  });

  it('names a device that is lost while it is measured', async () => {
    const own = await openTestGpu({ limits: 'default' });
    const plan = await new PlanRecorder(own).finish();
    own.destroy();
    await expect(plan.runMeasured()).rejects.toMatchObject({ name: 'GpuError', code: 'device-lost' });
  });

  it('counts the bytes of its uniforms', async () => {
    const { arena, all } = await tensors(10);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.call(count(x), count(x), count(x));
    const before = gpu.counters.bufferBytes;
    const plan = await recorder.finish();
    expect(gpu.counters.bufferBytes - before).toBe(uniformBytes(plan.calls));
    plan.destroy();
    expect(gpu.counters.bufferBytes).toBe(before);
    arena.destroy();
  });

  it('folds more workgroups than one dimension holds', async () => {
    expect(foldWorkgroups(0)).toEqual([1, 1, 1]);
    expect(foldWorkgroups(65_535)).toEqual([65_535, 1, 1]);
    expect(foldWorkgroups(65_536)).toEqual([32_768, 2, 1]);
    for (const many of [65_537, 1_000_003, 2 ** 32 - 2 ** 17]) {
      const [x, y, z] = foldWorkgroups(many);
      expect(Math.max(x, y)).toBeLessThanOrEqual(65_535);
      expect(x * y * z).toBeGreaterThanOrEqual(many);
    }
    expect(() => foldWorkgroups(65_535 ** 2 + 1)).toThrow(expect.objectContaining({ code: 'shape' }));

    const { arena, all } = await tensors(65_537);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.call(count(x));
    const plan = await recorder.finish();
    plan.run();
    expect(new Set(await arena.read(x))).toEqual(new Set([1]));
    plan.destroy();
    arena.destroy();
  });

  it('names shader, line and text of a compile error', async () => {
    const { arena, all } = await tensors(10);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.call(count(x, counting(true)));
    const failure = recorder.finish();
    await expect(failure).rejects.toMatchObject({ name: 'GpuError', code: 'shader' });
    await expect(failure).rejects.toThrow(/^broken \(main\) does not compile: line 8: .*nonsense/);
    expect(() => paramOffset(cuttable, 'nothing')).toThrow('has no field nothing');
    expect(() => layOutParams({ name: 'bare', code: 'fn main() {}' }, {})).toThrow(
      'bare declares no uniform named params.',
    );
    arena.destroy();
  });

  it('names a kernel that is bound wrongly, and leaves no buffer behind', async () => {
    const { arena, all } = await tensors(10);
    const [x] = all as [Tensor];
    const recorder = new PlanRecorder(gpu);
    recorder.call({ ...count(x), name: 'two of one', bindings: [x, x] });
    const before = gpu.counters.bufferBytes;
    const failure = recorder.finish();
    await expect(failure).rejects.toMatchObject({ name: 'GpuError', code: 'validation' });
    await expect(failure).rejects.toThrow('two of one');
    expect(gpu.counters.bufferBytes).toBe(before);
    arena.destroy();
  });

  it('finds at recording what would fail at every replay', async () => {
    const { arena, all } = await tensors(10, 10);
    const [x, y] = all as [Tensor, Tensor];
    const recorder = new PlanRecorder(gpu);
    // x is read and written through two bindings of one dispatch, which WebGPU forbids.
    recorder.call(...add({ x, y, out: x }));
    await expect(recorder.finish()).rejects.toMatchObject({ name: 'GpuError', code: 'validation' });
    arena.destroy();
  });
});
