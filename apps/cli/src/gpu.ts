// The GPU of this machine for commands that compute: Dawn's, loaded only when a command needs it.
import { type Gpu, GpuError, openGpu, tuneVariants } from '@weft/wgsl-kernels';
import { CommandError } from './command.ts';
import { tuningFile, tuningIsOn, tuningPath } from './tuning-file.ts';

/** What a result says of the device it was computed on. */
export interface GpuName {
  readonly name: string;
  /** True for an adapter that runs on the CPU. */
  readonly software: boolean;
}

export const gpuName = ({ adapter }: Gpu): GpuName => ({
  name: adapter.description || adapter.device || adapter.architecture || adapter.vendor || 'unnamed GPU adapter',
  software: adapter.software,
});

/**
 * Opens the GPU, runs `work` on it, and frees it. `reopen` gives up the present device, such as a lost one, for a new one.
 * Throws CommandError 'no-gpu' naming the remedy.
 */
export async function withGpu<T>(work: (gpu: Gpu, reopen: () => Promise<Gpu>) => Promise<T>): Promise<T> {
  let gpu = await openNodeGpu();
  const reopen = async (): Promise<Gpu> => {
    gpu.destroy();
    gpu = await openNodeGpu();
    return gpu;
  };
  try {
    return await work(gpu, reopen);
  } catch (error) {
    // What fails after a loss is a consequence; the loss itself is the cause worth reading.
    if (gpu.isLost() && !(error instanceof GpuError && error.code === 'device-lost')) {
      throw new GpuError('device-lost', 'The GPU was lost while it worked. Run the command again.', { cause: error });
    }
    throw error;
  } finally {
    gpu.destroy();
  }
}

/** Opens the GPU; the caller destroys it. Throws CommandError 'no-gpu' naming the remedy. */
export async function openNodeGpu(): Promise<Gpu> {
  try {
    const { nodeGpu } = await import('@weft/wgsl-kernels/node');
    const gpu = await openGpu(nodeGpu());
    if (tuningIsOn()) await tuneVariants(gpu, tuningFile(tuningPath()));
    return gpu;
  } catch (cause) {
    throw new CommandError(
      'no-gpu',
      'No GPU adapter can be opened from Node. From a checkout, `npm run --silent weft -- doctor` finds or installs a Vulkan driver; elsewhere install one (Mesa has one for the CPU).',
      { cause },
    );
  }
}
