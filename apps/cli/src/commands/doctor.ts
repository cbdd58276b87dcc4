// `weft doctor`: what this machine's GPU is, what it reaches, and what rank it would train a model at.
import { type ModelConfig, PROJECTIONS, parameterCount } from '@weft/formats';
import { GpuModel, NO_LIMITS, plannedMemory, type RankVerdict, rankVerdicts } from '@weft/trainer';
import { type Gpu, type MeasuredPeaks, measurePeaks } from '@weft/wgsl-kernels';
import { action, formatBytes, type Io, table } from '../command.ts';
import { readModelFolder } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import type { Register } from '../program.ts';

interface DoctorOptions {
  readonly model?: string;
}

/** What a run asks for unless it says otherwise; here only the ranks and the shape of a step matter. */
const RANKS = [1, 2, 4, 8, 16, 32, 64] as const;
const BATCH = 8;
const SEQUENCE = 128;

/** Limits worth reading; --json has them all. */
const SHOWN_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupsPerDimension',
] as const;

/** Limits are getters of the prototype, which JSON would leave out. */
function allLimits(limits: GPUSupportedLimits): Record<string, number> {
  const found: Record<string, number> = {};
  for (const name in limits) {
    const value: unknown = Reflect.get(limits, name);
    if (typeof value === 'number') found[name] = value;
  }
  return found;
}

export const registerDoctor: Register = (program) => {
  const command = program
    .command('doctor')
    .description('GPU adapter, limits, features, measured peaks; with a model also its memory and the rank to choose.')
    .option('--model <dir>', 'folder of a Llama-architecture model, as on Hugging Face');
  action<DoctorOptions>(command, async ({ model: folder }, _args, io) => {
    const model = folder === undefined ? null : await readModelFolder(folder);
    await withGpu(async (gpu) => {
      io.status('measuring peaks');
      const peaks = await measurePeaks(gpu);
      const device = {
        gpu: { ...gpuName(gpu), ...gpu.adapter },
        limits: allLimits(gpu.limits),
        features: [...gpu.features].sort(),
        peaks,
      };
      const lines = describeDevice(gpu, peaks);
      if (!model || folder === undefined) {
        io.result(device, () => lines.join('\n'));
        return;
      }
      const plan = await planModel(gpu, await GpuModel.upload(gpu, model), io);
      io.result({ ...device, model: { path: folder, ...plan } }, () =>
        [...lines, '', ...describePlan(folder, plan)].join('\n'),
      );
    });
  });
};

function describeDevice(gpu: Gpu, peaks: MeasuredPeaks): string[] {
  const { name, software } = gpuName(gpu);
  return [
    `GPU adapter: ${name}${software ? ' (software: runs on the CPU)' : ''}`,
    `Features in use: ${gpu.features.has('timestamp-query') ? 'timestamp-query' : 'none beyond the standard'}`,
    `Measured peaks: ${peaks.gflops.toFixed(1)} GFLOP/s float32, ${peaks.gigabytes.toFixed(1)} GB/s copying`,
    '',
    table([['limit', 'value'], ...SHOWN_LIMITS.map((limit) => [limit, gpu.limits[limit]])]),
  ];
}

interface ModelPlan {
  readonly parameters: number;
  readonly shape: { readonly batch: number; readonly sequence: number };
  readonly memory: ReturnType<typeof plannedMemory>;
  readonly verdicts: readonly RankVerdict[];
  /** null when no rank fits. */
  readonly rank: number | null;
}

async function planModel(gpu: Gpu, onGpu: GpuModel, io: Io): Promise<ModelPlan> {
  const { config, model } = onGpu;
  const shape = { batch: BATCH, sequence: Math.min(SEQUENCE, config.maxPositions) };
  const question = { ranks: ranksFor(config), alphaPerRank: 2, targets: PROJECTIONS, shape };
  io.status(`trying ranks on ${gpuName(gpu).name}`);
  const verdicts = await rankVerdicts(onGpu, question, NO_LIMITS);
  return {
    parameters: parameterCount(config),
    shape,
    memory: plannedMemory(model, question),
    verdicts,
    rank: verdicts.findLast(({ fits }) => fits)?.rank ?? null,
  };
}

/** No matrix of the model has a higher rank than its hidden size. */
const ranksFor = (config: ModelConfig): number[] => RANKS.filter((rank) => rank <= config.hiddenSize);

function describePlan(folder: string, { parameters, shape, memory, verdicts, rank }: ModelPlan): string[] {
  const heading = ['rank', 'total', 'weights', 'activations', 'logits', 'gradients', 'adapter', 'optimiser', 'rest'];
  const rows = memory.map(({ rank: each, memory: plan }) => [
    each,
    ...[plan.total, plan.weights, plan.activations, plan.logits, plan.gradients, plan.adapter, plan.optimiser].map(
      formatBytes,
    ),
    formatBytes(plan.uniforms + plan.readback),
  ]);
  return [
    `Model ${folder}: ${parameters.toLocaleString('en')} parameters. GPU memory of a training step of ${shape.batch} rows of ${shape.sequence} tokens:`,
    '',
    table([heading, ...rows]),
    '',
    ...verdicts.map(({ fits, reason }) => `${fits ? '✓' : '✗'} ${reason}`),
    '',
    rank === null
      ? 'No rank fits this device. Train a smaller model, or shorter rows.'
      : `This device would train at rank ${rank}.`,
  ];
}
