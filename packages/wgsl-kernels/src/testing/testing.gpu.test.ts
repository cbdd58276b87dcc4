// The test harness must itself be able to fail.
import { beforeAll, describe, expect, it } from 'vitest';
import { add } from '../kernels/add/add.ts';
import { matmulNN } from '../kernels/matmul/matmul.ts';
import type { Gpu } from '../runtime/device.ts';
import { EPSILON, expectWithin, openTestGpu, randomNumbers, readAsset, readJsonAsset, runKernel } from './index.ts';

describe('testing', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    gpu = await openTestGpu({ limits: 'default' });
    return () => gpu.destroy();
  });

  const four = { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) };

  it('finds an input that was written', async () => {
    const run = runKernel(gpu, { x: four, y: four, out: { shape: [2, 2], data: new Float32Array(4) } }, add);
    await expect(run).rejects.toThrow('out was written, but is an input.');
  });

  it('finds a guard band that was written', async () => {
    const run = runKernel(gpu, { x: four, y: four, out: { shape: [2, 2], written: true } }, ({ x, y, out }) => {
      const moved = { ...out, offset: out.offset - 256 };
      return add({ x, y, out: moved });
    });
    await expect(run).rejects.toThrow('A guard band was written');
  });

  it('finds an element that nobody wrote', async () => {
    const { c } = await runKernel(gpu, { a: four, b: four, c: { shape: [4], written: true } }, ({ a, b, c }) =>
      matmulNN({ a: { ...a, shape: [1, 2] }, b, c: { ...c, shape: [1, 2] } }),
    );
    expect([...c]).toEqual([7, 10, Number.NaN, Number.NaN]);
    expect(() => expectWithin('c', c, [7, 10, 0, 0], () => 1e9)).toThrow('c[2] is NaN where 0 ± 1000000000');
  });

  it('finds runs that differ', async () => {
    const run = runKernel(gpu, { x: four, y: four, out: { shape: [2, 2], written: true } }, (tensors) => [
      ...add(tensors),
      // Reads what the first run left in the guard band behind the tensor.
      ...add({ x: tensors.x, y: tensors.out, out: { ...tensors.out, offset: tensors.out.offset + 256 } }),
    ]);
    await expect(run).rejects.toThrow(Error);
  });

  it('compares by the bound given and by nothing else', () => {
    expect(expectWithin('x', [1], [1], () => 0)).toBe(0);
    expect(expectWithin('x', [1 + EPSILON / 2], [1], () => EPSILON)).toBeCloseTo(0.5, 10);
    expect(() => expectWithin('x', [1, 1 + 2 * EPSILON], [1, 1], () => EPSILON)).toThrow('x[1]');
    expect(() => expectWithin('x', [1], [1, 2], () => 1)).toThrow('1 elements where 2');
    expect(() => expectWithin('x', [Number.POSITIVE_INFINITY], [1], () => 1)).toThrow('x[0] is Infinity');
    expect(() => expectWithin('x', [1], [1], () => Number.NaN)).toThrow('x[0]');
  });

  it('draws the same numbers from the same seed', () => {
    expect(randomNumbers(5).floats(10)).toEqual(randomNumbers(5).floats(10));
    expect(randomNumbers(5).floats(10)).not.toEqual(randomNumbers(6).floats(10));
    expect(new Set(randomNumbers(5).integers(1000, 3))).toEqual(new Set([0, 1, 2]));
  });

  it('reads files of the repository', async () => {
    const golden = await readJsonAsset<Record<string, unknown>>('assets/models/stories260K/golden.json');
    expect(Object.keys(golden).length).toBeGreaterThan(0);
    await expect(readAsset('assets/models/none.json')).rejects.toThrow('none.json');
  });
});
