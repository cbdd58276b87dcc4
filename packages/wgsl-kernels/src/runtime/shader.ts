// Shaders and their pipelines: compiled once per device, in parallel, and kept.
import { makeShaderDataDefinitions, makeStructuredView, type StructDefinition } from 'webgpu-utils';
import type { Gpu } from './device.ts';
import { GpuError } from './errors.ts';

/** WGSL text under a name. `constants` become `const NAME: u32 = …;` lines before it. */
export interface ShaderSource {
  readonly name: string;
  readonly code: string;
  /** Extensions that the text needs, which stand before everything else: `enable f16;`. */
  readonly enables?: readonly Extension[];
  /** Storage bindings it declares of which a call may leave some out, telling by its uniforms not to use them. */
  readonly optional?: readonly number[];
}

/** WGSL's name of an optional feature. */
export type Extension = 'f16' | 'subgroups';

const FEATURES: Readonly<Record<Extension, GPUFeatureName>> = { f16: 'shader-f16', subgroups: 'subgroups' };

/** Whether this device has everything the shader needs. */
export const canRun = (gpu: Gpu, { enables = [] }: ShaderSource): boolean =>
  enables.every((extension) => gpu.features.has(FEATURES[extension]));

export interface PipelineKey {
  readonly shader: ShaderSource;
  readonly entryPoint: string;
  readonly constants: Readonly<Record<string, number>>;
}

const definitions = new WeakMap<ShaderSource, ReturnType<typeof makeShaderDataDefinitions>>();

/** webgpu-utils reads this global, which exists only where WebGPU does; memory is planned without it too. Values of the standard. */
function provideShaderStages(): void {
  globalThis.GPUShaderStage ??= { VERTEX: 1, FRAGMENT: 2, COMPUTE: 4 } as typeof GPUShaderStage;
}

/**
 * Bytes of the shader's uniform `params`, laid out as its WGSL struct says (webgpu-utils). Throws GpuError 'shader' when
 * there is no such uniform.
 */
export function layOutParams(shader: ShaderSource, values: Record<string, number>): ArrayBuffer {
  const view = makeStructuredView(paramsOf(shader));
  view.set(values);
  return view.arrayBuffer;
}

/** Byte offset of a field of the shader's uniform `params`. Throws GpuError 'shader' when there is none. */
export function paramOffset(shader: ShaderSource, name: string): number {
  // A uniform named params is a struct in every shader here; of anything else the fields are missing.
  const { fields } = paramsOf(shader).typeDefinition as Partial<StructDefinition>;
  const field = fields?.[name];
  if (!field) throw new GpuError('shader', `The uniform params of ${shader.name} has no field ${name}.`);
  return field.offset;
}

function paramsOf(shader: ShaderSource) {
  let parsed = definitions.get(shader);
  if (!parsed) {
    // webgpu-utils reads declarations only; constants given by us stand for nothing in the layout.
    provideShaderStages();
    parsed = makeShaderDataDefinitions(shader.code);
    definitions.set(shader, parsed);
  }
  const uniform = parsed.uniforms.params;
  if (!uniform) throw new GpuError('shader', `${shader.name} declares no uniform named params.`);
  return uniform;
}

const pipelines = new WeakMap<GPUDevice, Map<string, Promise<GPUComputePipeline>>>();

const keyOf = ({ shader, entryPoint, constants }: PipelineKey) =>
  `${shader.name}/${entryPoint}/${JSON.stringify(Object.entries(constants).sort())}`;

/** The pipeline of this key, compiled on first request. Rejects with GpuError 'shader' giving line and text. */
export function pipelineFor(gpu: Gpu, key: PipelineKey): Promise<GPUComputePipeline> {
  const known = pipelines.get(gpu.device) ?? new Map<string, Promise<GPUComputePipeline>>();
  pipelines.set(gpu.device, known);
  const name = keyOf(key);
  const cached = known.get(name);
  if (cached) return cached;
  const compiled = compile(gpu, key, name);
  known.set(name, compiled);
  return compiled;
}

/**
 * The pipelines of these keys, in their order, compiled at once, with a count of the distinct ones that are there. Rejects
 * as {@link pipelineFor} does.
 */
export async function compileAll(
  gpu: Gpu,
  keys: readonly PipelineKey[],
  onProgress?: (done: number, total: number) => void,
): Promise<GPUComputePipeline[]> {
  const pipelines = keys.map((key) => pipelineFor(gpu, key));
  const distinct = [...new Set(pipelines)];
  let done = 0;
  await Promise.all(
    distinct.map(async (pipeline) => {
      await pipeline;
      done += 1;
      onProgress?.(done, distinct.length);
    }),
  );
  return await Promise.all(pipelines);
}

/** What is put before a shader's own text. */
const linesBefore = ({ shader, constants }: PipelineKey): string[] => [
  ...(shader.enables ?? []).map((extension) => `enable ${extension};\n`),
  ...Object.entries(constants).map(([name, value]) => `const ${name}: u32 = ${value}u;\n`),
];

async function compile(
  gpu: Gpu,
  { shader, entryPoint, constants }: PipelineKey,
  label: string,
): Promise<GPUComputePipeline> {
  if (!canRun(gpu, shader)) {
    throw new GpuError(
      'shader',
      `${shader.name} needs ${shader.enables?.join(' and ')}, which this device does not have.`,
    );
  }
  const prefix = linesBefore({ shader, entryPoint, constants });
  gpu.device.pushErrorScope('validation');
  const module = gpu.device.createShaderModule({ label, code: prefix.join('') + shader.code });
  const scope = gpu.device.popErrorScope();
  const pipeline = gpu.device.createComputePipelineAsync({ label, layout: 'auto', compute: { module, entryPoint } });
  const [error, outcome] = await Promise.all([
    scope,
    pipeline.then(
      (value) => ({ value }),
      (cause: unknown) => ({ cause }),
    ),
  ]);
  if ('value' in outcome && !error) {
    gpu.counters.pipelinesCreated += 1;
    return outcome.value;
  }
  const { messages } = await module.getCompilationInfo();
  const first = messages.find((message) => message.type === 'error');
  const where = first
    ? `line ${first.lineNum - prefix.length}: ${first.message}`
    : (error?.message ?? String('cause' in outcome ? outcome.cause : ''));
  throw new GpuError('shader', `${shader.name} (${entryPoint}) does not compile: ${where}`, {
    cause: 'cause' in outcome ? outcome.cause : error,
  });
}

/** Text and line of every warning the compiler has for this shader. */
export async function shaderWarnings(gpu: Gpu, key: PipelineKey): Promise<string[]> {
  const { shader } = key;
  const prefix = linesBefore(key);
  const module = gpu.device.createShaderModule({ label: shader.name, code: prefix.join('') + shader.code });
  const { messages } = await module.getCompilationInfo();
  return messages
    .filter((message) => message.type !== 'info')
    .map((message) => `${shader.name}:${message.lineNum - prefix.length}: ${message.message}`);
}
