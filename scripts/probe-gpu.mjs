// Prints the WebGPU adapter that Dawn finds in this environment as JSON; exits 1 when there is none.
// A process of its own because a broken Vulkan driver takes its process down with it.
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const adapter = await create([]).requestAdapter();
if (!adapter) process.exit(1);
const device = await adapter.requestDevice();
const { vendor, architecture, device: name, description } = adapter.info;
device.destroy();
process.stdout.write(`${JSON.stringify({ vendor, architecture, name, description })}\n`);
process.exit(0);
