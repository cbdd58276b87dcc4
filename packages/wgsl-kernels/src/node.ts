// WebGPU in Node: Dawn, from the npm package `webgpu`. Set-up points it at a Vulkan driver through the environment.
import { create, globals } from 'webgpu';

let instance: GPU | null = null;

/** Dawn's `GPU`, with WebGPU's globals (GPUBufferUsage and the like) put in place. One a process. */
export function nodeGpu(): GPU {
  if (!instance) {
    Object.assign(globalThis, globals);
    instance = create([]);
  }
  return instance;
}
