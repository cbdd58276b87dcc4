// A checkpoint of any shape with random weights, written in pieces: matrices normal(0, initializer_range), norms one, biases
// zero. Every tensor has a stream of random numbers of its own, seeded from its name, so neither the number of shards nor
// the element type changes the numbers that are drawn.
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import {
  CONFIG_FILE,
  encodeElements,
  type ModelConfig,
  modelTensors,
  planSafetensors,
  type SafetensorsPlan,
  type TensorEntry,
  WEIGHTS_FILE,
  WEIGHTS_INDEX_FILE,
} from '@weft/formats';
import { type Random, seededRandom } from '@weft/trainer';
import { UsageError } from '../command.ts';
import { writeFailure } from '../disk.ts';
import { writeOutput } from '../folders.ts';

export const CHECKPOINT_DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;
export type CheckpointDtype = keyof typeof CHECKPOINT_DTYPES;
const TORCH_NAMES: Readonly<Record<CheckpointDtype, string>> = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' };

export interface RandomCheckpointOptions {
  /** The content of config.json; the element type is added to it. */
  readonly document: Readonly<Record<string, unknown>>;
  readonly config: ModelConfig;
  /** Standard deviation of matrices. */
  readonly deviation: number;
  /** Whether biases are drawn like matrices; else they are zero, as in a model that has not been trained. */
  readonly randomBiases: boolean;
  readonly dtype: CheckpointDtype;
  readonly seed: string;
}

/** One weight file to be written. */
export interface PlannedFile {
  readonly name: string;
  readonly plan: SafetensorsPlan;
}

/** Elements drawn, encoded and written at once; even, because they are drawn in pairs. */
const PIECE = 1 << 19;

/**
 * The weight files of the checkpoint: model.safetensors, or shards of about equal size with neighbouring tensors. Throws
 * UsageError for more shards than tensors.
 */
export function planFiles(config: ModelConfig, dtype: CheckpointDtype, shards: number): PlannedFile[] {
  const tensors = modelTensors(config).map((tensor) => ({ ...tensor, dtype: CHECKPOINT_DTYPES[dtype] }));
  if (shards > tensors.length)
    throw new UsageError(`--shards ${shards} is more than the model has tensors (${tensors.length}).`);
  const sizeOf = ({ shape }: { shape: readonly number[] }) => shape.reduce((product, length) => product * length, 1);
  const total = tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0);
  const parts: (typeof tensors)[] = Array.from({ length: shards }, () => []);
  let before = 0;
  tensors.forEach((tensor, i) => {
    // By where its middle lies; but each shard gets a tensor, however large the first ones are.
    const middle = Math.floor(((before + sizeOf(tensor) / 2) / total) * shards);
    const shard = Math.max(Math.min(middle, i), shards - (tensors.length - i));
    parts[shard]?.push(tensor);
    before += sizeOf(tensor);
  });
  const digits = (n: number) => String(n).padStart(5, '0');
  return parts.map((part, i) => ({
    name: shards === 1 ? WEIGHTS_FILE : `model-${digits(i + 1)}-of-${digits(shards)}.safetensors`,
    // transformers refuses files that do not say so.
    plan: planSafetensors(part, { format: 'pt' }),
  }));
}

/**
 * Writes config.json, the weights and, for several shards, their index. On failure nothing of it is left. Throws CommandError
 * 'disk-full' or 'unwritable', or the reason of the signal.
 */
export async function writeRandomCheckpoint(
  folder: string,
  files: readonly PlannedFile[],
  options: RandomCheckpointOptions,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const written: string[] = [];
  const place = (name: string): string => {
    const path = join(folder, name);
    written.push(path);
    return path;
  };
  try {
    for (const { name, plan } of files) await writeWeights(place(name), plan, options, signal, onBytes);
    if (files.length > 1) {
      const weightMap = files.flatMap(({ name, plan }) => plan.entries.map((entry) => [entry.name, name] as const));
      const bytes = files.flatMap(({ plan }) => plan.entries).reduce((sum, { begin, end }) => sum + end - begin, 0);
      const index = { metadata: { total_size: bytes }, weight_map: Object.fromEntries(weightMap) };
      await writeOutput(place(WEIGHTS_INDEX_FILE), `${JSON.stringify(index, null, 2)}\n`);
    }
    const document = { ...options.document, torch_dtype: TORCH_NAMES[options.dtype] };
    await writeOutput(place(CONFIG_FILE), `${JSON.stringify(document, null, 2)}\n`);
  } catch (error) {
    for (const path of written) await rm(path, { force: true });
    throw error;
  }
}

async function writeWeights(
  path: string,
  plan: SafetensorsPlan,
  options: RandomCheckpointOptions,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const failed = (cause: unknown): never => {
    throw writeFailure(path, cause);
  };
  const handle = await open(path, 'w').catch(failed);
  let writing = writeAll(handle, plan.header, 0);
  try {
    for (const entry of plan.entries) {
      let offset = entry.begin;
      for (const piece of pieces(entry, options)) {
        signal.throwIfAborted();
        // One piece is written while the next is drawn.
        await writing.catch(failed);
        writing = writeAll(handle, piece, offset);
        offset += piece.length;
        onBytes(piece.length);
      }
    }
    await writing.catch(failed);
  } finally {
    // After an error of another kind, what becomes of the last piece no longer matters.
    await Promise.allSettled([writing]);
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let written = 0; written < bytes.length; )
    written += (await handle.write(bytes, written, bytes.length - written, offset + written)).bytesWritten;
}

/** The tensor's elements as they lie in the file. */
function* pieces({ name, shape }: TensorEntry, options: RandomCheckpointOptions): Generator<Uint8Array> {
  const { seed, deviation, randomBiases, dtype } = options;
  const elements = shape.reduce((product, length) => product * length, 1);
  const random = shape.length > 1 || (randomBiases && name.endsWith('.bias')) ? seededRandom(seed, name) : null;
  const constant = name.endsWith('.bias') ? 0 : 1;
  for (let first = 0; first < elements; first += PIECE) {
    const values = new Float32Array(Math.min(PIECE, elements - first));
    if (random) fillNormal(values, deviation, random);
    else values.fill(constant);
    yield encodeElements(CHECKPOINT_DTYPES[dtype], values, name);
  }
}

/** Fills with normal(0, deviation) numbers, two from two uniform ones (Box and Muller 1958). */
export function fillNormal(values: Float32Array, deviation: number, random: Random): void {
  for (let i = 0; i < values.length; i += 2) {
    // 1 − u is never 0, whose logarithm would be infinite.
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - random.uniform()));
    const angle = 2 * Math.PI * random.uniform();
    values[i] = radius * Math.cos(angle);
    // Beyond the end of an odd length nothing is stored.
    values[i + 1] = radius * Math.sin(angle);
  }
}
