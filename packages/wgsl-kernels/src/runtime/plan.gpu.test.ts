import { beforeAll, describe, expect, it } from 'vitest';
import { add } from '../kernels/add/add.ts';
import { openTestGpu } from '../testing/index.ts';
import { type Arena, ArenaPlan } from './arena.ts';
import type { Gpu } from './device.ts';
import { foldWorkgroups, type KernelCall, PlanRecorder, uniformBytes } from './plan.ts';
import { layOutParams, type ShaderSource } from './shader.ts';
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

  function count(x: Tensor, shader = counting(), step = 1): KernelCall {
    return {
      name: 'count',
      shader,
      entryPoint: 'main',
      constants: { STEP: step },
      bindings: [x],
      uniforms: layOutParams(shader, { count: x.elements }),
      workgroups: foldWorkgroups(x.elements),
      flops: x.elements,
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
      plan.splitFor(milliseconds);
      expect(plan.submits).toBe(Math.min(7, Math.ceil(milliseconds / 100)));
      const before = gpu.counters.submits;
      plan.run();
      expect(gpu.counters.submits - before).toBe(plan.submits);
      expect(new Set(await arena.read(x))).toEqual(new Set([7]));
    }
    plan.destroy();
    arena.destroy();
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
