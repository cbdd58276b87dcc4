// `weft doctor`: what this machine's GPU is, what it reaches, and what rank it would train a model at.
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CONFIG_FILE, type ModelConfig, parseModelConfig, WEIGHTS_FILE, WEIGHTS_INDEX_FILE } from '@weft/formats';
import { type Gpu, GpuError, type MeasuredPeaks, measurePeaks } from '@weft/wgsl-kernels';
import { NAMED_SHAPES } from '../checkpoint/named-shapes.ts';
import { action, CommandError, type Io, table, UsageError } from '../command.ts';
import { readModelFolder } from '../folders.ts';
import { gpuName, withGpu } from '../gpu.ts';
import { resolveModel } from '../hub/resolve.ts';
import { count, counts, memoryOptions } from '../options.ts';
import type { Register } from '../program.ts';
import { describePlan, type ModelPlan, type PlanOptions, planByConfig, planOnGpu } from './doctor/plan.ts';
import { describeProfile, type Profile, profileModel } from './doctor/profile.ts';
import { uploadModel } from './train/session.ts';

interface DoctorOptions extends PlanOptions {
  readonly model?: string;
  readonly like?: string;
  readonly planOnly?: boolean;
  readonly profile?: boolean;
}

/** Limits worth reading; --json has them all. */
const SHOWN_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupsPerDimension',
] as const;

const HELP = `
Examples:
  weft doctor
  weft doctor --model models/mine --weights q8 --budget 2000 --rank 8,16,32
  weft doctor --model models/mine --profile --batch 1 --seq 256 --rank 8
  weft doctor --like llama-3.2-1b --weights q4 --batch 1 --seq 512 --rank 16 --checkpoint`;

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
    .option('--model <model>', 'model folder as on Hugging Face, or hf:ORG/NAME[@REV]')
    .option('--like <shape>', 'plan for a model of this shape, by arithmetic; `weft init --list` names them')
    .option('--plan-only', 'plan by arithmetic from config.json alone: no GPU, no weights')
    .option('--profile', 'time a real training step, kernel by kernel, at the first of --rank (default: 8)')
    .option('--batch <n>', 'rows a step (default: 8)', count('--batch'))
    .option('--seq <n>', 'tokens a row (default: 128)', count('--seq'))
    .option('--rank <list>', 'ranks to plan, separated by commas (default: 1 to 64)', counts('--rank'));
  memoryOptions(command).addHelpText('after', HELP);
  action<DoctorOptions>(command, async (options, _args, io) => {
    const { model, like } = options;
    if (model !== undefined && like !== undefined)
      throw new UsageError('--model and --like both name a model; give one.');
    if (options.profile && (model === undefined || options.planOnly))
      throw new UsageError('--profile times a step on the GPU; give --model DIR, without --plan-only.');
    if (like !== undefined)
      return printPlan(like, planByConfig(checkSequence(shapeConfig(like), options), options), io);
    if (!options.planOnly) return await examine(options, io);
    if (model === undefined) throw new UsageError('--plan-only plans a model; give --model DIR or --like SHAPE.');
    const { folder, name } = await resolveModel(model, io);
    printPlan(name, planByConfig(checkSequence(await readConfig(folder), options), options), io);
  });
};

const printPlan = (name: string, plan: ModelPlan, io: Io): void =>
  io.result({ model: { path: name, ...plan } }, () => describePlan(name, plan).join('\n'));

/** The device, and a model on it where it has weights and room for them. */
async function examine(options: DoctorOptions, io: Io): Promise<void> {
  const place = options.model === undefined ? null : await resolveModel(options.model, io);
  const config = place && checkSequence(await readConfig(place.folder), options);
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
    if (!place || !config) {
      io.result(device, () => lines.join('\n'));
      return;
    }
    const tried = await tryOnGpu(gpu, place.folder, { options, peaks }, io);
    const { plan, profile } = tried ?? { plan: planByConfig(config, options), profile: null };
    io.result({ ...device, model: { path: place.name, ...plan }, ...(profile ? { profile } : {}) }, () =>
      [...lines, '', ...describePlan(place.name, plan), ...(profile ? ['', ...describeProfile(profile)] : [])].join(
        '\n',
      ),
    );
  });
}

/** null, saying why, for a model without weights, or one too large for this device. */
async function tryOnGpu(
  gpu: Gpu,
  folder: string,
  { options, peaks }: { options: DoctorOptions; peaks: MeasuredPeaks },
  io: Io,
): Promise<{ plan: ModelPlan; profile: Profile | null } | null> {
  const found = await Promise.all(
    [WEIGHTS_FILE, WEIGHTS_INDEX_FILE].map((name) => stat(join(folder, name)).catch(() => null)),
  );
  if (found.every((file) => file === null)) {
    io.note(`${folder} has no weights; the plan is computed from its ${CONFIG_FILE}.`);
    return null;
  }
  const model = await readModelFolder(folder, io);
  try {
    const onGpu = await uploadModel(gpu, model, options, io);
    io.status(`trying ranks on ${gpuName(gpu).name}`);
    const plan = await planOnGpu(onGpu, options);
    return { plan, profile: options.profile ? await profileModel(onGpu, options, peaks, io) : null };
  } catch (error) {
    if (!(error instanceof GpuError && (error.code === 'out-of-memory' || error.code === 'shape'))) throw error;
    io.note(`The model does not fit this GPU: ${error.message} The plan is computed from its ${CONFIG_FILE}.`);
    return null;
  }
}

/** Throws CommandError 'no-such-file', or as parseModelConfig does. */
async function readConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, CONFIG_FILE);
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new CommandError('no-such-file', `There is no ${path}; --model takes a folder with a ${CONFIG_FILE}.`, {
      cause,
    });
  });
  return parseModelConfig(text);
}

/** Throws UsageError for a name that is none. */
function shapeConfig(like: string): ModelConfig {
  const shape = NAMED_SHAPES.find(({ name }) => name === like.toLowerCase());
  if (shape) return parseModelConfig(JSON.stringify(shape.config));
  throw new UsageError(
    `--like ${like} is no known shape; choose from ${NAMED_SHAPES.map(({ name }) => name).join(', ')}.`,
  );
}

/** Throws UsageError for rows beyond the context. */
function checkSequence(config: ModelConfig, { seq }: PlanOptions): ModelConfig {
  if (seq === undefined || seq <= config.maxPositions) return config;
  throw new UsageError(`--seq ${seq} is beyond the model's context of ${config.maxPositions} tokens.`);
}

/** What is used where it is offered. */
const USED_FEATURES = ['timestamp-query', 'shader-f16', 'subgroups'];

function describeDevice(gpu: Gpu, peaks: MeasuredPeaks): string[] {
  const { name, software } = gpuName(gpu);
  const used = USED_FEATURES.filter((feature) => gpu.features.has(feature));
  const { subgroups } = gpu;
  const sizes = subgroups && (subgroups.smallest === subgroups.largest ? '' : `${subgroups.smallest} to `);
  return [
    `GPU adapter: ${name}${software ? ' (software: runs on the CPU)' : ''}`,
    `Features in use: ${used.join(', ') || 'none beyond the standard'}${subgroups ? ` of ${sizes}${subgroups.largest}` : ''}`,
    `Measured peaks: ${peaks.gflops.toFixed(1)} GFLOP/s float32${
      peaks.f16Gflops === null ? '' : `, ${peaks.f16Gflops.toFixed(1)} float16`
    }, ${peaks.gigabytes.toFixed(1)} GB/s copying, ${peaks.loadGigabytes.toFixed(1)} GB/s loaded from caches, ${peaks.gigaexps.toFixed(2)} billion exponentials/s`,
    '',
    table([['limit', 'value'], ...SHOWN_LIMITS.map((limit) => [limit, gpu.limits[limit]])]),
  ];
}
