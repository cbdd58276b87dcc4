import { afterEach, describe, expect, it, vi } from 'vitest';
import { openTestGpu } from '../testing/index.ts';
import { ArenaPlan, readTensor } from './arena.ts';
import { type Gpu, openGpu } from './device.ts';
import { GpuError } from './errors.ts';
import { PlanRecorder } from './plan.ts';

describe('openGpu', () => {
  afterEach(() => vi.unstubAllGlobals());

  it('describes the adapter it found', async () => {
    const gpu = await openTestGpu();
    expect(`${gpu.adapter.vendor} ${gpu.adapter.architecture}`).not.toBe(' ');
    expect(gpu.adapter.software).toBe(/swiftshader|llvmpipe|lavapipe/i.test(JSON.stringify(gpu.adapter)));
    expect(gpu.isLost()).toBe(false);
    gpu.destroy();
    expect(gpu.isLost()).toBe(true);
  });

  it('asks for the default limits when told to', async () => {
    const gpu = await openTestGpu({ limits: 'default' });
    expect(gpu.limits.maxStorageBufferBindingSize).toBe(134_217_728);
    expect(gpu.limits.maxBufferSize).toBe(268_435_456);
    gpu.destroy();
  });

  it('says that there is no WebGPU', async () => {
    vi.stubGlobal('isSecureContext', true);
    await expect(openGpu(undefined)).rejects.toMatchObject({ name: 'GpuError', code: 'no-webgpu' });
    await expect(openGpu(undefined)).rejects.toThrow('Use a current Chrome or Edge');
  });

  it('says that the page is not in a secure context', async () => {
    vi.stubGlobal('isSecureContext', false);
    await expect(openGpu(undefined)).rejects.toMatchObject({ name: 'GpuError', code: 'insecure-context' });
    await expect(openGpu(undefined)).rejects.toThrow('Open it over HTTPS');
  });

  it('says that there is no GPU adapter', async () => {
    const none = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
    await expect(openGpu(none)).rejects.toMatchObject({ name: 'GpuError', code: 'no-adapter' });
    await expect(openGpu(none)).rejects.toThrow('Update the graphics driver');
  });

  it('says that the adapter gives no device, and why', async () => {
    const cause = new Error('adapter is already consumed');
    const adapter = {
      features: new Set(),
      limits: {},
      info: { vendor: 'acme', architecture: 'rocket', device: '', description: '' },
      requestDevice: () => Promise.reject(cause),
    };
    const busy = { requestAdapter: () => Promise.resolve(adapter) } as unknown as GPU;
    await expect(openGpu(busy)).rejects.toMatchObject({ code: 'no-adapter', cause });
    await expect(openGpu(busy)).rejects.toThrow('acme rocket');
  });

  it('tells of a device lost for no reason of ours', async () => {
    // A real loss cannot be brought about from here; the promise that reports it can.
    const real = await openTestGpu();
    let lose: (info: { reason: string; message: string }) => void = () => undefined;
    const lost = new Promise((resolve) => {
      lose = resolve;
    });
    const device = new Proxy(real.device, {
      get: (target, name) => (name === 'lost' ? lost : Reflect.get(target, name, target)),
    });
    const adapter = {
      features: new Set(),
      limits: {},
      info: { vendor: 'acme', architecture: '', device: '', description: '' },
      requestDevice: () => Promise.resolve(device),
    };
    const gpu = await openGpu({ requestAdapter: () => Promise.resolve(adapter) } as unknown as GPU, {
      limits: 'default',
    });
    expect(gpu.isLost()).toBe(false);
    lose({ reason: 'unknown', message: 'driver reset' });
    const error = await gpu.lost;
    expect(error).toBeInstanceOf(GpuError);
    expect(error.code).toBe('device-lost');
    expect(error.message).toContain('driver reset');
    expect(gpu.isLost()).toBe(true);
    real.destroy();
  });
});

describe('a lost device', () => {
  async function withTensor(): Promise<{ gpu: Gpu; plan: ArenaPlan }> {
    const plan = new ArenaPlan();
    return { gpu: await openTestGpu(), plan };
  }

  it('is told of by whatever uses it next', async () => {
    const { gpu, plan } = await withTensor();
    const ref = plan.tensor('x', [64]);
    const arena = await plan.allocate(gpu);
    const x = arena.get(ref);
    const recorder = new PlanRecorder(gpu);
    recorder.clear(x);
    const step = await recorder.finish();
    step.run();
    gpu.device.destroy();
    await gpu.device.lost;
    await expect(readTensor(gpu, x)).rejects.toMatchObject({ name: 'GpuError', code: 'device-lost' });
    expect(() => step.run()).toThrow(expect.objectContaining({ code: 'device-lost' }));
    gpu.destroy();
  });
});
