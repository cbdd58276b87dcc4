import { beforeAll, describe, expect, it } from 'vitest';
import { add } from '../kernels/add/add.ts';
import { openTestGpu } from '../testing/index.ts';
import { ArenaPlan, readTensor, SLAB_BYTES } from './arena.ts';
import type { Gpu } from './device.ts';
import { PlanRecorder } from './plan.ts';
import { subTensor } from './tensor.ts';

describe('arena', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  it('allocates exactly the bytes it planned, zeroed, and gives them back', async () => {
    const plan = new ArenaPlan(4096);
    const refs = [1, 64, 65, 1000, 1024, 7].map((count, i) => plan.tensor(`t${i}`, [count]));
    expect(plan.rows()).toEqual(
      [256, 256, 512, 4096, 4096, 256].map((bytes, i) => ({ name: `t${i}`, bytes, shared: false })),
    );
    const before = gpu.counters.bufferBytes;
    const arena = await plan.allocate(gpu);
    expect(gpu.counters.bufferBytes - before).toBe(plan.bytes);
    expect(arena.bytes).toBe(plan.bytes);
    expect(plan.bytes).toBe(plan.rows().reduce((sum, row) => sum + row.bytes, 0));
    for (const ref of refs) {
      const tensor = arena.get(ref);
      expect(tensor.offset % 256).toBe(0);
      expect(tensor.buffer.size).toBeLessThanOrEqual(4096);
      expect(await arena.read(tensor)).toEqual(new Float32Array(tensor.elements));
    }
    arena.destroy();
    expect(gpu.counters.bufferBytes).toBe(before);
  });

  it('keeps tensors apart', async () => {
    const plan = new ArenaPlan();
    const refs = [3, 64, 129, 1].map((count, i) => plan.tensor(`t${i}`, [count]));
    const arena = await plan.allocate(gpu);
    for (const [i, ref] of refs.entries())
      arena.write(arena.get(ref), new Float32Array(arena.get(ref).elements).fill(i + 1));
    for (const [i, ref] of refs.entries()) {
      expect(new Set(await arena.read(arena.get(ref)))).toEqual(new Set([i + 1]));
    }
    arena.destroy();
  });

  it('gives shared tensors the same bytes where their lives do not meet', async () => {
    const plan = new ArenaPlan();
    const shared = (name: string) => plan.tensor(name, [64], 'f32', { shared: true });
    const [x, y, a, b, c] = [plan.tensor('x', [64]), plan.tensor('y', [64]), shared('a'), shared('b'), shared('c')];
    shared('unused');
    const half = subTensor(c, 0, [32]);
    const calls = [
      ...add({ x, y, out: a }), // 1
      ...add({ x: a, y: x, out: b }), // 2
      ...add({ x: b, y: x, out: c }), // 3: c may lie where a was
      ...add({ x: half, y: subTensor(x, 0, [32]), out: subTensor(y, 0, [32]) }), // 4
    ];
    plan.shareMemory(calls);
    expect(plan.rows().map(({ name, shared: isShared }) => [name, isShared])).toEqual([
      ['x', false],
      ['y', false],
      ['a', true],
      ['b', true],
      ['c', true],
    ]);
    expect([plan.bytes, plan.sharedBytes]).toEqual([4 * 256, 2 * 256]);
    const arena = await plan.allocate(gpu);
    expect(arena.get(c)).toMatchObject({ buffer: arena.get(a).buffer, offset: arena.get(a).offset });
    arena.write(arena.get(x), new Float32Array(64).fill(1));
    const recorder = new PlanRecorder(gpu);
    recorder.call(...arena.bind(calls));
    const step = await recorder.finish();
    step.run();
    expect([...(await arena.read(arena.get(y)))]).toEqual(Array.from({ length: 64 }, (_, i) => (i < 32 ? 4 : 0)));
    step.destroy();
    arena.destroy();
  });

  it('keeps integers as they are', async () => {
    const plan = new ArenaPlan();
    const ref = plan.tensor('labels', [3], 'i32');
    const arena = await plan.allocate(gpu);
    arena.write(arena.get(ref), Int32Array.of(-100, 7, 2 ** 31 - 1));
    const back = await readTensor(gpu, arena.get(ref));
    expect([...new Int32Array(back.buffer)]).toEqual([-100, 7, 2 ** 31 - 1]);
    arena.destroy();
  });

  it('refuses, by name, what is no tensor or larger than a slab', () => {
    const plan = new ArenaPlan(1024);
    expect(() => plan.tensor('none', [0, 4])).toThrow(expect.objectContaining({ code: 'shape' }));
    expect(() => plan.tensor('half', [0.5, 4])).toThrow('half: [0.5,4] is not the shape of a tensor.');
    expect(() => plan.tensor('head', [32_000, 8])).toThrow(
      'head [32000,8] takes 1024000 bytes; a tensor may have at most 1024.',
    );
    expect(() => new ArenaPlan().tensor('head', [SLAB_BYTES / 4 + 1])).toThrow('a tensor may have at most');
  });

  it('refuses a tensor of another arena and data of another length', async () => {
    const [plan, other] = [new ArenaPlan(), new ArenaPlan()];
    const ref = plan.tensor('x', [4]);
    other.tensor('y', [4]);
    const arena = await plan.allocate(gpu);
    const stranger = await other.allocate(gpu);
    expect(() => stranger.get(ref)).toThrow('x belongs to another arena.');
    expect(() => arena.write(arena.get(ref), new Float32Array(5))).toThrow('x holds 4 elements, not 5.');
    arena.destroy();
    stranger.destroy();
  });

  it('says that memory does not suffice, leaves nothing behind, and the device works on', async () => {
    const before = { ...gpu.counters };
    const plan = new ArenaPlan(2 ** 45);
    plan.tensor('small', [64]);
    plan.tensor('far too large', [2 ** 40]);
    await expect(plan.allocate(gpu)).rejects.toMatchObject({ name: 'GpuError', code: 'out-of-memory' });
    await expect(plan.allocate(gpu)).rejects.toThrow(`no room for ${plan.bytes} bytes. Choose a smaller rank`);
    expect(gpu.counters.bufferBytes).toBe(before.bufferBytes);
    const modest = new ArenaPlan();
    const ref = modest.tensor('x', [64]);
    const arena = await modest.allocate(gpu);
    expect(await arena.read(arena.get(ref))).toEqual(new Float32Array(64));
    arena.destroy();
  });
});
