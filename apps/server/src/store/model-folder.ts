// The base model as it lies on disk, Hugging Face layout, its weights whole or in shards: looked at once, before the server
// listens. Weights are not loaded; their names, shapes and places are checked against config.json.
import { existsSync } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import {
  type ByteSource,
  CONFIG_FILE,
  FormatError,
  type FormatErrorCode,
  type ModelConfig,
  openCheckpoint,
  parameterCount,
  WEIGHTS_FILE,
  WEIGHTS_INDEX_FILE,
  weightFilesOf,
} from '@weft/formats';
import type { Manifest } from '@weft/protocol';
import { messageOf, ServerError, type ServerErrorCode } from '../errors.ts';
import { describeFile, type ServedFile } from './manifest.ts';

const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json'] as const;

/** What a folder with whole weights holds; with shards it holds the index and these instead of model.safetensors. */
export const MODEL_FILES = [CONFIG_FILE, WEIGHTS_FILE, ...TOKENIZER_FILES] as const;

/** Served where there is one: newer checkpoints keep the chat template apart from tokenizer_config.json. */
const CHAT_TEMPLATE_FILE = 'chat_template.jinja';

export interface ModelFolder {
  readonly config: ModelConfig;
  readonly model: Manifest['model'];
  readonly files: readonly ServedFile[];
}

const SERVER_CODES: Partial<Record<FormatErrorCode, ServerErrorCode>> = {
  'unsupported-architecture': 'model-unknown-architecture',
  'model-config': 'model-bad-config',
  'model-missing': 'model-missing-file',
  'model-shape': 'model-wrong-shape',
};

/** Throws what `work` throws as a ServerError that names the folder. */
async function naming<T>(folder: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const code = cause instanceof FormatError ? SERVER_CODES[cause.code] : undefined;
    throw new ServerError(code ?? 'model-bad-weights', `${folder}: ${messageOf(cause)}`, { cause });
  }
}

async function fileSource(path: string): Promise<ByteSource> {
  const { size } = await stat(path);
  return {
    size,
    read: async (offset, length) => {
      const file = await open(path, 'r');
      try {
        const { bytesRead, buffer } = await file.read(new Uint8Array(length), 0, length, offset);
        return buffer.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    },
  };
}

/** Names of the weight files, the index among them. One whole file wins over an index, as in transformers. */
async function weightNames(folder: string): Promise<string[]> {
  const index = join(folder, WEIGHTS_INDEX_FILE);
  if (existsSync(join(folder, WEIGHTS_FILE)) || !existsSync(index)) return [WEIGHTS_FILE];
  return naming(folder, async () => [WEIGHTS_INDEX_FILE, ...weightFilesOf(await readFile(index, 'utf8'))]);
}

/** Throws a ServerError that names the missing, damaged or contradictory file. */
export async function openModelFolder(folder: string): Promise<ModelFolder> {
  const weights = await weightNames(folder);
  const names = [CONFIG_FILE, ...weights, ...TOKENIZER_FILES];
  const missing = names.find((name) => !existsSync(join(folder, name)));
  if (missing !== undefined) {
    throw new ServerError(
      'model-missing-file',
      `${join(folder, missing)} is missing. A model folder holds ${MODEL_FILES.join(', ')}, or instead of ${WEIGHTS_FILE} a ${WEIGHTS_INDEX_FILE} and the shards it names.`,
    );
  }
  const { config } = await naming(folder, async () => {
    const sources = [CONFIG_FILE, ...weights].map(
      async (name) => [name, await fileSource(join(folder, name))] as const,
    );
    return openCheckpoint(new Map(await Promise.all(sources)));
  });
  for (const name of TOKENIZER_FILES) {
    try {
      JSON.parse(await readFile(join(folder, name), 'utf8'));
    } catch (cause) {
      throw new ServerError('model-bad-config', `${join(folder, name)} is not JSON; fetch it again.`, { cause });
    }
  }
  const served = existsSync(join(folder, CHAT_TEMPLATE_FILE)) ? [...names, CHAT_TEMPLATE_FILE] : names;
  const files = await Promise.all(
    served.map((name) => describeFile(join(folder, name), { kind: 'model', task: null, name })),
  );
  const model = {
    name: basename(resolve(folder)).slice(0, 200),
    licence: await licenceOf(folder),
    parameters: parameterCount(config),
  };
  return { config, model, files };
}

/** What the model card says, in its front matter or in a line of its own. */
async function licenceOf(folder: string): Promise<string> {
  const card = join(folder, 'README.md');
  const text = existsSync(card) ? await readFile(card, 'utf8') : '';
  return /^licen[cs]e:\s*(.+?)\s*$/im.exec(text)?.[1]?.slice(0, 200) ?? 'see the model card';
}
