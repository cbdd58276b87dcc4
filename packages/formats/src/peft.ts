// LoRA adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors.
import { z } from 'zod';
import { FormatError } from './errors.ts';
import { type RawTensor, readSafetensors, type SafetensorsHeader, type TensorEntry, toFloat32 } from './safetensors.ts';
import { writeSafetensors } from './safetensors-write.ts';

/** The factors of one adapted matrix: ΔW = scale · B · A. */
export interface LoraFactors {
  /** Hugging Face name of the layer, such as `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly in: number;
  readonly out: number;
  readonly rank: number;
  readonly alpha: number;
  /** α/r, or α/√r with rslora. */
  readonly scale: number;
  /** [rank, in] */
  readonly a: Float32Array;
  /** [out, rank] */
  readonly b: Float32Array;
}

/** What a file and its configuration say of one adapted matrix, its two tensors still as `Tensor`. */
export interface FactorPair<Tensor> extends Omit<LoraFactors, 'a' | 'b'> {
  readonly a: Tensor;
  readonly b: Tensor;
}

interface AdapterOf<Matrix> {
  readonly baseModel: string;
  readonly rslora: boolean;
  /** Share of each layer's input that LoRA drops while training; 0 when left out. Says nothing about the factors. */
  readonly dropout?: number;
  readonly matrices: ReadonlyMap<string, Matrix>;
}

export type LoraAdapter = AdapterOf<LoraFactors>;

/** An adapter of which no value has been read: where its factors lie in the file. */
export type AdapterLayout = AdapterOf<FactorPair<TensorEntry>>;

const PREFIX = 'base_model.model.';

/** PEFT's tensor name of a factor. */
export const peftTensorName = (module: string, factor: 'A' | 'B'): string => `${PREFIX}${module}.lora_${factor}.weight`;

/** Module and factor of a PEFT tensor name, or null when it is none. */
export function parsePeftTensorName(name: string): { module: string; factor: 'A' | 'B' } | null {
  const match = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(name);
  const [, module, factor] = match ?? [];
  return module !== undefined && (factor === 'A' || factor === 'B') ? { module, factor } : null;
}

/** Rank and alpha of every matrix, as PEFT's patterns say: the plain value unless a pattern's key ends the module's name. */
export interface RankSpec {
  readonly rank: number;
  readonly alpha: number;
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
}

/** Compiled once: a pattern may name every module of a large model, and is asked about each of them. */
const compiled = new WeakMap<object, readonly (readonly [RegExp, number])[]>();

function compile(pattern: Readonly<Record<string, number>>): readonly (readonly [RegExp, number])[] {
  const known = compiled.get(pattern);
  if (known) return known;
  const expressions = Object.entries(pattern).map(([key, value]) => {
    try {
      // PEFT matches `(.*\.)?(key)$`, with the key as a regular expression and the first match winning.
      return [new RegExp(`^(.*\\.)?(${key})$`), value] as const;
    } catch (cause) {
      throw new FormatError(
        'adapter-config',
        `adapter_config.json: the pattern key ${key} is not a regular expression; name the module instead.`,
        { cause },
      );
    }
  });
  compiled.set(pattern, expressions);
  return expressions;
}

const fromPattern = (pattern: Readonly<Record<string, number>>, module: string, plain: number): number =>
  compile(pattern).find(([expression]) => expression.test(module))?.[1] ?? plain;

/** Throws FormatError 'adapter-config' when a pattern's key is no regular expression. */
export const rankOf = (spec: RankSpec, module: string): number => fromPattern(spec.rankPattern, module, spec.rank);
export const alphaOf = (spec: RankSpec, module: string): number => fromPattern(spec.alphaPattern, module, spec.alpha);
/** Directions that HetLoRA's rank self-pruning keeps of a rank r: ⌊γ·r⌋, and one at least (Cho et al. 2024, §3.2). */
export const prunedRank = (rank: number, gamma: number): number => Math.max(1, Math.floor(gamma * rank));
export const scaleOf = (alpha: number, rank: number, rslora = false): number =>
  alpha / (rslora ? Math.sqrt(rank) : rank);

const configSchema = z.object({
  peft_type: z.literal('LORA'),
  r: z.int().positive(),
  lora_alpha: z.number().positive(),
  rank_pattern: z.record(z.string(), z.int().positive()).nullish(),
  alpha_pattern: z.record(z.string(), z.number().positive()).nullish(),
  use_rslora: z.boolean().nullish(),
  lora_dropout: z.number().min(0).lt(1).nullish(),
  base_model_name_or_path: z.string().nullish(),
});

/** Options that change what the factors mean. Anything but these values is refused by name. */
const PLAIN_OPTIONS: Readonly<Record<string, readonly unknown[]>> = {
  bias: ['none'],
  lora_bias: [false],
  fan_in_fan_out: [false],
  use_dora: [false],
  use_qalora: [false],
  modules_to_save: [],
  layer_replication: [],
  trainable_token_indices: [],
  target_parameters: [],
  alora_invocation_tokens: [],
  megatron_config: [],
  // Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) change the base weights that the factors belong to.
  init_lora_weights: [true, false, 'gaussian', 'eva', 'orthogonal'],
};

const isAbsent = (value: unknown): boolean =>
  value === undefined || value === null || (Array.isArray(value) && value.length === 0);

function refuseOptions(document: object): void {
  for (const [name, value] of Object.entries(document)) {
    const allowed = Object.hasOwn(PLAIN_OPTIONS, name) ? PLAIN_OPTIONS[name] : undefined;
    if (!allowed || isAbsent(value) || allowed.includes(value)) continue;
    const shown = typeof value === 'string' || typeof value === 'boolean' ? ` ${JSON.stringify(value)}` : '';
    throw new FormatError(
      'adapter-config',
      `adapter_config.json: ${name}${shown} is not supported; export the adapter without it.`,
    );
  }
}

function parseConfig(text: string): z.output<typeof configSchema> {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new FormatError('adapter-config', 'adapter_config.json is not JSON; fetch it again.', { cause });
  }
  const parsed = configSchema.safeParse(document);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new FormatError('adapter-config', `adapter_config.json: ${issue?.path.join('.')}: ${issue?.message}.`, {
      cause: parsed.error,
    });
  }
  if (typeof document === 'object' && document !== null) refuseOptions(document);
  return parsed.data;
}

const isMatrix = (shape: readonly number[]): shape is readonly [number, number] => shape.length === 2;

const WEIGHTS_FILE = 'adapter_model.safetensors';

type AdapterSpec = RankSpec & { readonly rslora: boolean };

const failed = (file: string, what: string): never => {
  throw new FormatError('adapter-tensor', `${file}: ${what}.`);
};

/** The tensors of a file by twos, against what the configuration says. Throws FormatError 'adapter-tensor'. */
function pairFactors<Tensor extends { readonly shape: readonly number[] }>(
  tensors: ReadonlyMap<string, Tensor>,
  spec: AdapterSpec,
  file: string,
): Map<string, FactorPair<Tensor>> {
  const fail = (what: string): never => failed(file, what);
  const modules = new Set<string>();
  for (const name of tensors.keys())
    modules.add((parsePeftTensorName(name) ?? fail(`${name} is not a LoRA factor`)).module);
  const matrices = new Map<string, FactorPair<Tensor>>();
  for (const module of [...modules].sort()) {
    const a = tensors.get(peftTensorName(module, 'A')) ?? fail(`${module} has no lora_A`);
    const b = tensors.get(peftTensorName(module, 'B')) ?? fail(`${module} has no lora_B`);
    if (!isMatrix(a.shape) || !isMatrix(b.shape)) return fail(`the factors of ${module} are not matrices`);
    const rank = rankOf(spec, module);
    const [rankA, columns] = a.shape;
    const [out, rankB] = b.shape;
    if (rankA !== rank || rankB !== rank)
      fail(`${module} has lora_A [${a.shape}] and lora_B [${b.shape}] where the configuration says rank ${rank}`);
    const alpha = alphaOf(spec, module);
    matrices.set(module, { module, in: columns, out, rank, alpha, scale: scaleOf(alpha, rank, spec.rslora), a, b });
  }
  if (matrices.size === 0) fail('it holds no LoRA factor');
  return matrices;
}

/** The elements of one factor of `module`. Throws FormatError 'adapter-tensor' when one is not finite. */
export function readFactor(tensor: RawTensor, module: string, file = WEIGHTS_FILE): Float32Array {
  const values = toFloat32(tensor, module);
  return values.every(Number.isFinite) ? values : failed(file, `${module} holds NaN or infinity`);
}

/** The factor pairs of a safetensors blob with PEFT names. Throws FormatError 'adapter-tensor' naming the tensor at fault. */
export function readFactors(weights: Uint8Array, spec: AdapterSpec, file = WEIGHTS_FILE): Map<string, LoraFactors> {
  const pairs = pairFactors(readSafetensors(weights, file).tensors, spec, file);
  return new Map(
    Array.from(pairs, ([module, pair]) => {
      const [a, b] = [readFactor(pair.a, module, file), readFactor(pair.b, module, file)];
      return [module, { ...pair, a, b }];
    }),
  );
}

/** All that a configuration says of an adapter but its matrices, and what is needed to read these. */
function readConfig(text: string): { about: Omit<LoraAdapter, 'matrices'>; spec: AdapterSpec } {
  const config = parseConfig(text);
  const rslora = config.use_rslora ?? false;
  return {
    about: {
      baseModel: config.base_model_name_or_path ?? '',
      rslora,
      ...(config.lora_dropout ? { dropout: config.lora_dropout } : {}),
    },
    spec: {
      rank: config.r,
      alpha: config.lora_alpha,
      rankPattern: config.rank_pattern ?? {},
      alphaPattern: config.alpha_pattern ?? {},
      rslora,
    },
  };
}

/** Reads an adapter folder's two files. Throws FormatError 'adapter-config', 'adapter-tensor' or a safetensors code. */
export function readAdapter(files: { config: string; weights: Uint8Array }): LoraAdapter {
  const { about, spec } = readConfig(files.config);
  return { ...about, matrices: readFactors(files.weights, spec) };
}

/**
 * The same of a file of which only the header has been read. Its factors are read, and found to be finite, by
 * {@link readFactor}. Throws FormatError 'adapter-config' or 'adapter-tensor'.
 */
export function readAdapterLayout(files: { config: string; header: SafetensorsHeader }): AdapterLayout {
  const { about, spec } = readConfig(files.config);
  return { ...about, matrices: pairFactors(files.header.entries, spec, WEIGHTS_FILE) };
}

/** The factors as one safetensors blob with PEFT names. */
export function writeFactors(matrices: Iterable<LoraFactors>, dtype: 'F32' | 'F16' = 'F32'): Uint8Array {
  const tensors = [...matrices].flatMap(({ module, rank, in: columns, out, a, b }) => [
    { name: peftTensorName(module, 'A'), dtype, shape: [rank, columns], data: a },
    { name: peftTensorName(module, 'B'), dtype, shape: [out, rank], data: b },
  ]);
  return writeSafetensors(tensors, { format: 'pt' });
}

/** The value most matrices have, and the exceptions by module. */
function pattern(
  matrices: readonly LoraFactors[],
  value: (factors: LoraFactors) => number,
): { plain: number; exceptions: Record<string, number> } {
  const counts = new Map<number, number>();
  for (const factors of matrices) counts.set(value(factors), (counts.get(value(factors)) ?? 0) + 1);
  const plain = [...counts].sort(([a, n], [b, m]) => m - n || a - b)[0]?.[0] ?? 1;
  const others = matrices.filter((factors) => value(factors) !== plain);
  return {
    plain,
    exceptions: Object.fromEntries(others.map((factors) => [factors.module.replaceAll('.', '\\.'), value(factors)])),
  };
}

/** The text of adapter_config.json. Ranks and alphas that differ become PEFT's patterns. */
export function adapterConfig({ baseModel, rslora, dropout = 0, matrices }: LoraAdapter): string {
  const all = [...matrices.values()];
  const ranks = pattern(all, (factors) => factors.rank);
  const alphas = pattern(all, (factors) => factors.alpha);
  const targets = [...new Set(all.map(({ module }) => module.slice(module.lastIndexOf('.') + 1)))].sort();
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: baseModel,
    r: ranks.plain,
    lora_alpha: alphas.plain,
    rank_pattern: ranks.exceptions,
    alpha_pattern: alphas.exceptions,
    target_modules: targets,
    use_rslora: rslora,
    lora_dropout: dropout,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

/** An adapter folder's files by name, loadable by PEFT. */
export function writeAdapter(
  adapter: LoraAdapter,
  dtype: 'F32' | 'F16' = 'F32',
): { 'adapter_config.json': string; 'adapter_model.safetensors': Uint8Array } {
  return {
    'adapter_config.json': adapterConfig(adapter),
    'adapter_model.safetensors': writeFactors(adapter.matrices.values(), dtype),
  };
}

/**
 * The same ΔW at a larger rank: zero rows in A, zero columns in B, and the α that keeps the scale, scale · r or, with
 * rslora, scale · √r. Throws FormatError 'adapter-tensor' for a smaller rank.
 */
export function padRank(factors: LoraFactors, rank: number, rslora = false): LoraFactors {
  if (rank < factors.rank)
    throw new FormatError('adapter-tensor', `${factors.module}: rank ${factors.rank} cannot be padded to ${rank}.`);
  const a = new Float32Array(rank * factors.in);
  a.set(factors.a);
  const b = new Float32Array(factors.out * rank);
  for (let row = 0; row < factors.out; row += 1)
    b.set(factors.b.subarray(row * factors.rank, (row + 1) * factors.rank), row * rank);
  return { ...factors, rank, alpha: factors.scale * (rslora ? Math.sqrt(rank) : rank), a, b };
}

/**
 * The same adapter with every matrix at one rank, as exports have it: the largest there is, or `rank`, padded with zeros. Throws
 * FormatError 'adapter-tensor' when a matrix is larger than `rank`.
 */
export function uniformRank(adapter: LoraAdapter, rank?: number): LoraAdapter {
  const largest = Math.max(...[...adapter.matrices.values()].map((factors) => factors.rank));
  const padded = [...adapter.matrices].map(
    ([module, factors]) => [module, padRank(factors, rank ?? largest, adapter.rslora)] as const,
  );
  return { ...adapter, matrices: new Map(padded) };
}
