// WebGPU in Node: Dawn, from the npm package `webgpu`. Set-up points it at a Vulkan driver through the environment.
import { create, globals } from 'webgpu';

/** Between two looks whether what is awaited is done, milliseconds: short at first, longer as the wait goes on. */
const FIRST_NAP_MS = 0.1;
const LONGEST_NAP_MS = 2;
const NAP_GROWTH = 1.1;

/**
 * Makes waiting for the GPU leave the processor to others. Dawn looks whether work is done on every turn of the event loop,
 * without a pause: that occupies a processor, and software adapters compute on processors. So every turn sleeps a little
 * as long as something is awaited. Timers and sockets are served between naps.
 */
function napWhileAwaited(waits: readonly { readonly prototype: object; readonly method: string }[]): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  let awaited = 0;
  let isNapping = false;
  let milliseconds = FIRST_NAP_MS;
  const nap = (): void => {
    isNapping = awaited > 0;
    if (!isNapping) return;
    Atomics.wait(cell, 0, 0, milliseconds);
    milliseconds = Math.min(LONGEST_NAP_MS, milliseconds * NAP_GROWTH);
    setImmediate(nap);
  };
  const settled = (): void => {
    awaited -= 1;
  };
  for (const { prototype, method } of waits) {
    const wait = Reflect.get(prototype, method) as (this: unknown, ...args: unknown[]) => Promise<unknown>;
    const value = function (this: unknown, ...args: unknown[]): Promise<unknown> {
      const promise = wait.apply(this, args);
      promise.then(settled, settled);
      awaited += 1;
      milliseconds = FIRST_NAP_MS;
      if (!isNapping) setImmediate(nap);
      isNapping = true;
      return promise;
    };
    Object.defineProperty(prototype, method, { value, writable: true, configurable: true });
  }
}

let instance: GPU | null = null;

/** Dawn's `GPU`, with WebGPU's globals (GPUBufferUsage and the like) put in place. One a process. */
export function nodeGpu(): GPU {
  if (!instance) {
    Object.assign(globalThis, globals);
    instance = create([]);
    napWhileAwaited([
      { prototype: GPUQueue.prototype, method: 'onSubmittedWorkDone' },
      { prototype: GPUBuffer.prototype, method: 'mapAsync' },
      { prototype: GPUDevice.prototype, method: 'createComputePipelineAsync' },
    ]);
  }
  return instance;
}
