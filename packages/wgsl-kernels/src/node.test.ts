import { afterAll, expect, it } from 'vitest';
import { nodeGpu } from './node.ts';
import { openGpu } from './runtime/device.ts';

const gpu = await openGpu(nodeGpu());
afterAll(() => gpu.destroy());

/** Turns of the event loop in a millisecond until the promise settles. */
async function turnsWhile(promise: Promise<unknown>): Promise<number> {
  const began = performance.now();
  let turns = 0;
  let isDone = false;
  const count = (): void => {
    turns += 1;
    if (!isDone) setImmediate(count);
  };
  setImmediate(count);
  await promise.finally(() => {
    isDone = true;
  });
  return turns / (performance.now() - began);
}

it('leaves the processor to the GPU while waiting for it, and only then', async () => {
  const { device } = gpu;
  const buffer = device.createBuffer({
    size: 64 * 1024 * 1024,
    usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
  });
  const encoder = device.createCommandEncoder();
  for (let i = 0; i < 20; i += 1) encoder.clearBuffer(buffer);
  device.queue.submit([encoder.finish()]);
  // Two waits at once nap no longer than one.
  const waits = Promise.all([device.queue.onSubmittedWorkDone(), device.queue.onSubmittedWorkDone()]);
  // A turn sleeps a tenth of a millisecond or more; one that does not takes some microseconds.
  expect(await turnsWhile(waits)).toBeLessThan(10);
  expect(await turnsWhile(new Promise((resolve) => setTimeout(resolve, 20)))).toBeGreaterThan(20);
  buffer.destroy();
});
