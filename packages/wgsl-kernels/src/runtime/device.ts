// The GPU as the rest of this package sees it: one device, what it can do, and a count of what was asked of it.
// Every buffer, bind group, pipeline and submit goes through here, so that tests can prove a step creates nothing.
import { GpuError } from './errors.ts';
import { BINDING_ALIGNMENT } from './tensor.ts';

/** Which GPU adapter this is. `software`: it runs on the CPU (SwiftShader, llvmpipe, WARP). */
export interface AdapterSummary {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly software: boolean;
}

/** What was created and submitted since the device was opened. `bufferBytes` counts live buffers only. */
export interface GpuCounters {
  buffersCreated: number;
  bufferBytes: number;
  bindGroupsCreated: number;
  pipelinesCreated: number;
  submits: number;
  dispatches: number;
}

export interface Gpu {
  readonly device: GPUDevice;
  readonly adapter: AdapterSummary;
  readonly limits: GPUSupportedLimits;
  readonly features: ReadonlySet<string>;
  /** Sizes a subgroup may have on this adapter; null where subgroups are not in use. */
  readonly subgroups: { readonly smallest: number; readonly largest: number } | null;
  readonly counters: GpuCounters;
  /** Resolves with a 'device-lost' error when the device goes away for any reason but destroy(). */
  readonly lost: Promise<GpuError>;
  /** True from the moment the device is lost or destroyed. */
  isLost(): boolean;
  /** Bound where a shader declares more than a call uses: {@link UNUSED_BINDINGS} places, never read nor written. */
  readonly unused: GPUBuffer;
  createBuffer(label: string, bytes: number, usage: GPUBufferUsageFlags): GPUBuffer;
  destroyBuffer(buffer: GPUBuffer): void;
  createBindGroup(descriptor: GPUBindGroupDescriptor): GPUBindGroup;
  submit(commands: GPUCommandBuffer[]): void;
  destroy(): void;
}

/** Storage bindings that a call may leave out, at most. */
export const UNUSED_BINDINGS = 4;

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|warp|cpu/i;

function summarise(info: GPUAdapterInfo): AdapterSummary {
  const { vendor, architecture, device, description } = info;
  const software = info.isFallbackAdapter === true || SOFTWARE.test(`${architecture} ${device} ${description}`);
  return { vendor, architecture, device, description, software };
}

/** The limits worth more than the default where the adapter has more; everything else stays portable. */
const RAISED_LIMITS = ['maxBufferSize', 'maxStorageBufferBindingSize'] as const;

/** Features used only where they are offered: they time kernels and make them faster, and nothing needs them. */
const OPTIONAL_FEATURES: readonly GPUFeatureName[] = ['timestamp-query', 'shader-f16', 'subgroups'];

export interface OpenOptions {
  /** 'default' asks for no more than every WebGPU device has, as a test of portability. */
  readonly limits?: 'maximum' | 'default';
  /** 'none' leaves out what is only used where offered, as a test of portability. */
  readonly features?: 'offered' | 'none';
}

/**
 * Opens a device on the default adapter. Features used only where offered: `timestamp-query`, `shader-f16`, `subgroups`.
 * Throws GpuError 'no-webgpu', 'insecure-context' or 'no-adapter'.
 *
 * @param gpu `navigator.gpu`, or Dawn's from `@weft/wgsl-kernels/node`
 */
export async function openGpu(gpu: GPU | undefined, options: OpenOptions = {}): Promise<Gpu> {
  if (!gpu) {
    if (globalThis.isSecureContext === false) {
      throw new GpuError(
        'insecure-context',
        'This page came over plain HTTP from another device, where browsers switch WebGPU off. Open it over HTTPS, or on the server itself as http://localhost.',
      );
    }
    throw new GpuError(
      'no-webgpu',
      'This browser has no WebGPU. Use a current Chrome or Edge, Safari 26 or newer, or Firefox 141 or newer.',
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) {
    throw new GpuError(
      'no-adapter',
      'WebGPU found no GPU adapter. Update the graphics driver, or turn hardware acceleration on in the browser’s settings.',
    );
  }
  const { limits = 'maximum', features = 'offered' } = options;
  const requiredLimits: Record<string, number> = {};
  if (limits === 'maximum') for (const name of RAISED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const requiredFeatures = OPTIONAL_FEATURES.filter((name) => features === 'offered' && adapter.features.has(name));
  const summary = summarise(adapter.info);
  // The range of the standard, where a browser does not tell the adapter's own.
  const { subgroupMinSize: smallest = 4, subgroupMaxSize: largest = 128 } = adapter.info;
  const subgroups = requiredFeatures.includes('subgroups') ? { smallest, largest } : null;
  try {
    return wrapDevice(await adapter.requestDevice({ requiredLimits, requiredFeatures }), summary, subgroups);
  } catch (cause) {
    throw new GpuError(
      'no-adapter',
      `The GPU adapter ${summary.vendor} ${summary.architecture} gave no device. Close other pages that use the GPU, or restart the browser.`,
      { cause },
    );
  }
}

function wrapDevice(device: GPUDevice, adapter: AdapterSummary, subgroups: Gpu['subgroups']): Gpu {
  const counters: GpuCounters = {
    buffersCreated: 0,
    bufferBytes: 0,
    bindGroupsCreated: 0,
    pipelinesCreated: 0,
    submits: 0,
    dispatches: 0,
  };
  let gone = false;
  let closed = false;
  const lost = device.lost.then((info) => {
    gone = true;
    // Our own destroy() resolves the device's promise too; nobody is waiting for that one.
    if (closed) return new Promise<never>(() => undefined);
    return new GpuError(
      'device-lost',
      `The GPU was lost (${info.message || 'no reason given'}). Open a new device and go on from the last snapshot.`,
    );
  });
  let unused: GPUBuffer | undefined;
  const live = new Map<GPUBuffer, number>();
  return {
    device,
    adapter,
    limits: device.limits,
    features: device.features as ReadonlySet<string>,
    subgroups,
    counters,
    lost,
    isLost: () => gone,
    get unused() {
      // Not counted: it stands for nothing that anyone planned.
      const size = UNUSED_BINDINGS * BINDING_ALIGNMENT;
      unused ??= device.createBuffer({ label: 'unused bindings', size, usage: GPUBufferUsage.STORAGE });
      return unused;
    },
    createBuffer(label, bytes, usage) {
      const buffer = device.createBuffer({ label, size: bytes, usage });
      counters.buffersCreated += 1;
      counters.bufferBytes += bytes;
      live.set(buffer, bytes);
      return buffer;
    },
    destroyBuffer(buffer) {
      counters.bufferBytes -= live.get(buffer) ?? 0;
      live.delete(buffer);
      buffer.destroy();
    },
    createBindGroup(descriptor) {
      counters.bindGroupsCreated += 1;
      return device.createBindGroup(descriptor);
    },
    submit(commands) {
      counters.submits += 1;
      device.queue.submit(commands);
    },
    destroy() {
      gone = true;
      closed = true;
      for (const buffer of live.keys()) buffer.destroy();
      live.clear();
      unused?.destroy();
      counters.bufferBytes = 0;
      device.destroy();
    },
  };
}
