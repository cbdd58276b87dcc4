// A Hugging Face checkpoint read in parts: config.json with model.safetensors, or with model.safetensors.index.json and its
// shards. Opening looks at headers only; weights are read piece by piece, so the whole model is never in memory.
import { z } from 'zod';
import { type ByteSource, readPart, readSafetensorsHeader, readText } from './byte-source.ts';
import { FormatError } from './errors.ts';
import { type ModelConfig, parseModelConfig } from './model-config.ts';
import { modelTensors } from './model-tensors.ts';
import { DTYPE_BYTES, type Dtype, elementsOf, type TensorEntry, toFloat32 } from './safetensors.ts';

export const CONFIG_FILE = 'config.json';
export const WEIGHTS_FILE = 'model.safetensors';
export const WEIGHTS_INDEX_FILE = 'model.safetensors.index.json';

export interface Checkpoint {
  readonly config: ModelConfig;
  /** Element type in the file. Throws FormatError 'model-tensor' for a name that is not in modelTensors(config). */
  dtypeOf(name: string): Dtype;
  /**
   * `count` elements of tensor `name` from element `first` on, widened to float32. Throws FormatError 'model-tensor' on NaN or
   * infinity, beyond the tensor's end, and for a name that is not in modelTensors(config). May be a view of the file's bytes.
   */
  read(name: string, first: number, count: number): Promise<Float32Array>;
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });
/** A file beside the index, not elsewhere on a disk. */
const SHARD_NAME = /^[^/\\:]+\.safetensors$/;

/** The shard of every tensor, from the text of model.safetensors.index.json. Throws FormatError 'model-index'. */
export function parseWeightIndex(text: string): ReadonlyMap<string, string> {
  const fail = (what: string, cause?: unknown): never => {
    throw new FormatError('model-index', `${WEIGHTS_INDEX_FILE} ${what}; fetch it again.`, { cause });
  };
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    fail('is not JSON', cause);
  }
  const parsed = indexSchema.safeParse(document);
  if (!parsed.success) return fail('has no weight_map that names a file for every tensor', parsed.error);
  const shards = new Map(Object.entries(parsed.data.weight_map));
  if (shards.size === 0) fail('names no tensor');
  for (const [tensor, file] of shards)
    if (!SHARD_NAME.test(file)) fail(`puts ${tensor} into "${file}", which is not a safetensors file of its folder`);
  return shards;
}

/**
 * Names of the weight files of a folder, given the text of its index: the shards in order, or model.safetensors where there is
 * no index. A folder that has model.safetensors itself needs no index. Throws FormatError 'model-index'.
 */
export function weightFilesOf(indexText: string | null): string[] {
  return indexText === null ? [WEIGHTS_FILE] : [...new Set(parseWeightIndex(indexText).values())].sort();
}

interface Place {
  readonly file: string;
  readonly source: ByteSource;
  readonly entry: TensorEntry;
}

interface WeightFiles {
  /** Every tensor of every file. */
  readonly places: ReadonlyMap<string, Place>;
  /** What one calls these files together. */
  readonly title: string;
}

type Files = ReadonlyMap<string, ByteSource>;

function need(files: Files, name: string, why: string): ByteSource {
  const source = files.get(name);
  if (source) return source;
  throw new FormatError('model-missing', `The model has no ${name}, ${why}.`);
}

async function placesIn(files: Files, file: string, why: string): Promise<Map<string, Place>> {
  const source = need(files, file, why);
  const { entries } = await readSafetensorsHeader(source, file);
  return new Map([...entries.values()].map((entry) => [entry.name, { file, source, entry }]));
}

/** A single file wins over an index, as in transformers. */
async function openWeights(files: Files): Promise<WeightFiles> {
  const index = files.get(WEIGHTS_INDEX_FILE);
  if (files.has(WEIGHTS_FILE) || !index) {
    const why = `and no ${WEIGHTS_INDEX_FILE} either. Only safetensors checkpoints can be read; save the model as one`;
    return { places: await placesIn(files, WEIGHTS_FILE, why), title: WEIGHTS_FILE };
  }
  const text = await readText(index, WEIGHTS_INDEX_FILE);
  const shardOf = parseWeightIndex(text);
  const places = new Map<string, Place>();
  const strays = new Map<string, string>();
  for (const file of weightFilesOf(text)) {
    const why = `a shard that ${WEIGHTS_INDEX_FILE} names. Fetch all shards`;
    for (const [name, place] of await placesIn(files, file, why)) {
      if (shardOf.get(name) === file) places.set(name, place);
      else strays.set(name, file);
    }
  }
  for (const [name, file] of shardOf) {
    if (places.has(name)) continue;
    const stray = strays.get(name);
    throw new FormatError(
      'model-tensor',
      `${file} has no ${name}, which ${WEIGHTS_INDEX_FILE} puts there${stray === undefined ? '' : `; it is in ${stray}`}. ` +
        'The shards are of different versions; fetch all of them again.',
    );
  }
  return { places, title: 'the shards' };
}

const FLOATS: readonly Dtype[] = ['F32', 'F16', 'BF16'];

/** Says why a tensor may be missing, where the other names tell. */
function missing(name: string, { places, title }: WeightFiles, config: ModelConfig): FormatError {
  const embedding = [...places.keys()].find((other) => other.endsWith('embed_tokens.weight'));
  const prefix = embedding?.slice(0, -'embed_tokens.weight'.length);
  if (prefix !== undefined && prefix !== 'model.') {
    return new FormatError(
      'model-tensor',
      `The tensors of ${title} are called ${prefix}embed_tokens.weight and so on, where ${config.architecture} has model.embed_tokens.weight. ` +
        'It was saved without its language-model head or inside another model; save it from AutoModelForCausalLM.',
    );
  }
  if (name === 'lm_head.weight') {
    return new FormatError(
      'model-tensor',
      `There is no lm_head.weight in ${title}, which config.json promises: it does not set tie_word_embeddings. ` +
        'Set that to true if the model shares its embedding with its head; fetch the model again if not.',
    );
  }
  return new FormatError(
    'model-tensor',
    `There is no ${name} in ${title}, which config.json promises. Fetch the model again.`,
  );
}

function checkTensor(place: Place, shape: readonly number[]): void {
  const { file, entry } = place;
  if (entry.shape.join() !== shape.join()) {
    throw new FormatError(
      'model-shape',
      `${file}: ${entry.name} is [${entry.shape}] where config.json promises [${shape}]. Weights and config are of different models.`,
    );
  }
  if (!FLOATS.includes(entry.dtype)) {
    throw new FormatError(
      'model-tensor',
      `${file}: ${entry.name} is ${entry.dtype}; only ${FLOATS.join(', ')} weights can be read. Save the model as one of these.`,
    );
  }
}

/**
 * Opens a checkpoint from its files by name; others are not looked at. Reads config.json, the index and the headers, and checks
 * that every tensor of modelTensors(config) is there with its shape and an element type of F32, F16 or BF16. Tensors beyond
 * these, such as the head of a tied model, are let be.
 *
 * Throws FormatError 'model-missing' naming the file, 'model-config', 'unsupported-architecture', 'model-index', 'model-tensor'
 * (missing, in another shard, of another type), 'model-shape', or a safetensors code.
 */
export async function openCheckpoint(files: Files): Promise<Checkpoint> {
  const configSource = need(files, CONFIG_FILE, 'which says what its weights are. Fetch the model again');
  const config = parseModelConfig(await readText(configSource, CONFIG_FILE));
  const weights = await openWeights(files);
  const tensors = new Map<string, Place>();
  for (const { name, shape } of modelTensors(config)) {
    const place = weights.places.get(name);
    if (!place) throw missing(name, weights, config);
    checkTensor(place, shape);
    tensors.set(name, place);
  }
  const placeOf = (name: string): Place => {
    const place = tensors.get(name);
    if (place) return place;
    throw new FormatError('model-tensor', `${config.architecture} has no tensor ${name}.`);
  };
  return {
    config,
    dtypeOf: (name) => placeOf(name).entry.dtype,
    read: (name, first, count) => readElements(placeOf(name), first, count),
  };
}

async function readElements({ file, source, entry }: Place, first: number, count: number): Promise<Float32Array> {
  const { name, dtype, shape } = entry;
  const total = elementsOf(shape);
  if (!(first >= 0 && count >= 0 && first + count <= total)) {
    throw new FormatError(
      'model-tensor',
      `${file}: elements ${first} to ${first + count} of ${name} were asked for; it has ${total}.`,
    );
  }
  const width = DTYPE_BYTES[dtype];
  const bytes = await readPart(source, entry.begin + first * width, count * width, file);
  const values = toFloat32({ dtype, shape: [count], bytes }, name);
  const stray = findNonFinite(values);
  if (stray >= 0) {
    throw new FormatError(
      'model-tensor',
      `${file}: ${name} holds ${values[stray]} at element ${first + stray}. The weights are damaged; fetch the model again.`,
    );
  }
  return values;
}

/** Index of the first NaN or infinity, by its exponent bits; −1 when there is none. */
function findNonFinite(values: Float32Array): number {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i += 1) if (((words[i] ?? 0) & 0x7f800000) === 0x7f800000) return i;
  return -1;
}
