// What GPU tests share. They run twice, in Node through Dawn and in Chromium, from one set of files.
import { type Gpu, type OpenOptions, openGpu } from '../runtime/device.ts';

const inNode = typeof process !== 'undefined' && typeof process.versions?.node === 'string';

/** The test machine's GPU: Dawn's in Node, the browser's in Chromium. At the limits every WebGPU device has, unless asked. */
export async function openTestGpu(options: OpenOptions = {}): Promise<Gpu> {
  const asked: OpenOptions = { limits: 'default', ...options };
  if (!inNode) return await openGpu(navigator.gpu, asked);
  const { nodeGpu } = await import('../node.ts');
  return await openGpu(nodeGpu(), asked);
}

/** A file of the repository, by its path from the root, such as `assets/models/stories260K/golden.json`. */
export async function readAsset(path: string): Promise<Uint8Array> {
  if (inNode) {
    const { readFile } = await import('node:fs/promises');
    return new Uint8Array(await readFile(new URL(`../../../../${path}`, import.meta.url)));
  }
  const response = await fetch(`/${path}`);
  if (!response.ok) throw new Error(`/${path}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** {@link readAsset} as JSON. */
export async function readJsonAsset<T>(path: string): Promise<T> {
  return JSON.parse(new TextDecoder().decode(await readAsset(path))) as T;
}

export * from './random.ts';
export * from './run-kernel.ts';
export * from './tolerance.ts';
