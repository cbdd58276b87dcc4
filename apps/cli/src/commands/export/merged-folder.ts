// Writes a merged checkpoint as a model folder: weights as they are computed, one file after the other, and config.json last,
// so that what is unfinished is no model.
import { copyFile, type FileHandle, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Checkpoint,
  CONFIG_FILE,
  type LoraAdapter,
  mergeAdapter,
  planSafetensors,
  type SafetensorsPlan,
  WEIGHTS_FILE,
  WEIGHTS_INDEX_FILE,
} from '@weft/formats';
import { z } from 'zod';
import type { Io } from '../../command.ts';
import { requireSpace, writeFailure } from '../../disk.ts';
import { writeOutput } from '../../folders.ts';
import { byteProgress } from '../../progress.ts';
import { makeEmptyFolder } from '../init.ts';

/** Element types, as safetensors and as transformers call them. */
export const EXPORT_DTYPES = {
  f32: { file: 'F32', config: 'float32' },
  f16: { file: 'F16', config: 'float16' },
  bf16: { file: 'BF16', config: 'bfloat16' },
} as const;
export type ExportDtype = keyof typeof EXPORT_DTYPES;

/** Copied where the model has them. */
const COMPANIONS = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'vocab.json',
  'merges.txt',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'LICENSE',
  'LICENSE.txt',
  'LICENSE.md',
  'NOTICE',
  'USE_POLICY.md',
];

export interface MergeSource {
  /** Folder of the base model. */
  readonly folder: string;
  /** What its adapters call it. */
  readonly name: string;
  readonly checkpoint: Checkpoint;
  readonly adapter: LoraAdapter;
  readonly adapterName: string;
}

export interface MergeTarget {
  readonly out: string;
  /** null: each tensor's own. */
  readonly dtype: ExportDtype | null;
  readonly shardBytes: number;
}

export interface WrittenModel {
  readonly dtype: ExportDtype | 'as the model';
  readonly bytes: number;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

interface Shard {
  readonly name: string;
  readonly plan: SafetensorsPlan;
}

const dataBytes = ({ entries }: SafetensorsPlan): number =>
  entries.reduce((sum, { begin, end }) => sum + end - begin, 0);

/**
 * Cuts a planned file into several of at most `shardBytes`, or of one tensor. Their tensors follow each other as in the one
 * file, so its data, cut, is theirs.
 */
export function shardsOf(whole: SafetensorsPlan, shardBytes: number): Shard[] {
  const groups: (typeof whole.entries)[number][][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const entry of whole.entries) {
    const bytes = entry.end - entry.begin;
    if (size + bytes > shardBytes) {
      groups.push([]);
      size = 0;
    }
    groups.at(-1)?.push(entry);
    size += bytes;
  }
  if (groups.length === 1) return [{ name: WEIGHTS_FILE, plan: whole }];
  const digits = (n: number) => String(n).padStart(5, '0');
  return groups.map((group, i) => ({
    name: `model-${digits(i + 1)}-of-${digits(groups.length)}.safetensors`,
    plan: planSafetensors(group, { format: 'pt' }),
  }));
}

/** Throws CommandError 'not-empty', 'disk-full' or 'unwritable', FormatError, or the signal's reason; then nothing is left. */
export async function exportMerged(source: MergeSource, target: MergeTarget, io: Io): Promise<WrittenModel> {
  const { out, dtype, shardBytes } = target;
  const merged = mergeAdapter(
    source.checkpoint,
    source.adapter,
    dtype === null ? {} : { dtype: EXPORT_DTYPES[dtype].file },
  );
  const shards = shardsOf(merged.plan, shardBytes);
  const bytes = shards.reduce((sum, { plan }) => sum + plan.size, 0);
  await makeEmptyFolder(out);
  await requireSpace(out, bytes, 'choose another --out');
  try {
    const progress = byteProgress(io, bytes, 'written');
    try {
      await writeShards(out, shards, merged.pieces(), progress.advance, io.signal);
    } finally {
      progress.stop();
    }
    if (shards.length > 1) await writeOutput(join(out, WEIGHTS_INDEX_FILE), indexOf(shards));
    await copyAll(source.folder, out);
    await writeOutput(join(out, 'README.md'), cardOf(source));
    await writeOutput(join(out, CONFIG_FILE), await configOf(source.folder, dtype));
  } catch (error) {
    for (const name of await readdir(out)) await rm(join(out, name), { force: true });
    throw error;
  }
  return {
    dtype: dtype ?? 'as the model',
    bytes,
    files: shards.map(({ name, plan }) => ({ name, bytes: plan.size })),
  };
}

/** `pieces`: the one file's, header first. */
async function writeShards(
  out: string,
  shards: readonly Shard[],
  pieces: AsyncGenerator<Uint8Array>,
  onBytes: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  await pieces.next();
  for (const { name, plan } of shards) {
    const path = join(out, name);
    const failed = (cause: unknown): never => {
      throw writeFailure(path, cause);
    };
    const file = await open(path, 'wx').catch(failed);
    try {
      await writeAll(file, plan.header).catch(failed);
      onBytes(plan.header.length);
      for (let left = dataBytes(plan); left > 0; ) {
        signal.throwIfAborted();
        const { value, done } = await pieces.next();
        if (done) throw new RangeError(`The merged checkpoint ended ${left} bytes before the end of ${name}.`);
        await writeAll(file, value).catch(failed);
        left -= value.length;
        onBytes(value.length);
      }
    } finally {
      await file.close();
    }
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length; ) written += (await file.write(bytes, written)).bytesWritten;
}

function indexOf(shards: readonly Shard[]): string {
  const places = shards.flatMap(({ name, plan }) => plan.entries.map((entry) => [entry.name, name] as const));
  const index = {
    metadata: { total_size: shards.reduce((sum, { plan }) => sum + dataBytes(plan), 0) },
    weight_map: Object.fromEntries([...places].sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  return `${JSON.stringify(index, null, 2)}\n`;
}

async function copyAll(from: string, to: string): Promise<void> {
  const present = new Set(await readdir(from));
  for (const name of COMPANIONS.filter((each) => present.has(each))) {
    await copyFile(join(from, name), join(to, name)).catch((cause: unknown) => {
      throw writeFailure(join(to, name), cause);
    });
  }
}

/** config.json of the base model, saying the element type of the weights where it was chosen. */
async function configOf(folder: string, dtype: ExportDtype | null): Promise<string> {
  const text = await readFile(join(folder, CONFIG_FILE), 'utf8');
  if (dtype === null) return text;
  const document = z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  // transformers 5 calls it dtype, and still reads the older name.
  const key = 'dtype' in document ? 'dtype' : 'torch_dtype';
  return `${JSON.stringify({ ...document, [key]: EXPORT_DTYPES[dtype].config }, null, 2)}\n`;
}

const cardOf = ({ name, adapter, adapterName }: MergeSource): string => {
  const ranks = [...new Set([...adapter.matrices.values()].map(({ rank }) => rank))].sort((a, b) => a - b);
  return [
    '---',
    `base_model: ${JSON.stringify(name)}`,
    'library_name: transformers',
    'pipeline_tag: text-generation',
    'tags:',
    '- merge',
    '- weft',
    '---',
    '',
    '# Merged model',
    '',
    `The model ${name} with the LoRA adapter ${adapterName} merged into its weights by \`weft export\`: W + s·B·A for ${adapter.matrices.size} matrices, rank ${ranks.join(', ')}.`,
    '',
    "The base model's licence applies to it.",
    '',
  ].join('\n');
};
