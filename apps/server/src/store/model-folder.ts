// The base model as it lies on disk, Hugging Face layout: looked at once, before the server listens. Weights are not
// loaded; their names, shapes and places are checked against config.json.
import { existsSync } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import {
  type ModelConfig,
  modelTensors,
  parameterCount,
  parseModelConfig,
  parseSafetensorsHeader,
  type SafetensorsHeader,
} from '@weft/formats';
import type { Manifest } from '@weft/protocol';
import { messageOf, ServerError, type ServerErrorCode } from '../errors.ts';
import { describeFile, type ServedFile } from './manifest.ts';

export const MODEL_FILES = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'] as const;

export interface ModelFolder {
  readonly config: ModelConfig;
  readonly model: Manifest['model'];
  readonly files: readonly ServedFile[];
}

const FLOATS = ['F32', 'F16', 'BF16'];

async function readHeader(path: string): Promise<SafetensorsHeader> {
  const { size } = await stat(path);
  const file = await open(path, 'r');
  try {
    const prefix = new Uint8Array(Math.min(8, size));
    await file.read(prefix, 0, prefix.length, 0);
    const length = prefix.length < 8 ? 0 : Number(new DataView(prefix.buffer).getBigUint64(0, true));
    const head = new Uint8Array(Math.min(size, 8 + length));
    await file.read(head, 0, head.length, 0);
    return parseSafetensorsHeader(head, size, path);
  } finally {
    await file.close();
  }
}

function checkWeights(header: SafetensorsHeader, config: ModelConfig, path: string): void {
  for (const { name, shape } of modelTensors(config)) {
    const entry = header.entries.get(name);
    if (!entry) {
      throw new ServerError(
        'model-bad-weights',
        `${path} has no tensor ${name}, which config.json promises. Fetch the model again.`,
      );
    }
    if (entry.shape.length !== shape.length || entry.shape.some((size, i) => size !== shape[i])) {
      throw new ServerError(
        'model-wrong-shape',
        `${path}: ${name} is [${entry.shape.join(', ')}]; config.json promises [${shape.join(', ')}]. Weights and config are of different models.`,
      );
    }
    if (!FLOATS.includes(entry.dtype)) {
      throw new ServerError(
        'model-bad-weights',
        `${path}: ${name} is ${entry.dtype}; only ${FLOATS.join(', ')} weights can be trained on.`,
      );
    }
  }
}

const CONFIG_CODES: Record<string, ServerErrorCode> = {
  'unsupported-architecture': 'model-unknown-architecture',
  'model-config': 'model-bad-config',
};

/** Throws a ServerError that names the missing, damaged or contradictory file. */
export async function openModelFolder(folder: string): Promise<ModelFolder> {
  for (const name of MODEL_FILES) {
    if (existsSync(join(folder, name))) continue;
    const sharded = name === 'model.safetensors' && existsSync(join(folder, 'model.safetensors.index.json'));
    throw new ServerError(
      'model-missing-file',
      sharded
        ? `${folder} holds a model cut into several safetensors files, which is not supported yet; save it as one model.safetensors.`
        : `${join(folder, name)} is missing. A model folder holds ${MODEL_FILES.join(', ')}.`,
    );
  }
  const config = await readFile(join(folder, 'config.json'), 'utf8').then((text) => {
    try {
      return parseModelConfig(text);
    } catch (cause) {
      const code = cause instanceof Error && 'code' in cause ? CONFIG_CODES[String(cause.code)] : undefined;
      throw new ServerError(code ?? 'model-bad-config', `${folder}: ${messageOf(cause)}`, { cause });
    }
  });
  const weights = join(folder, 'model.safetensors');
  const header = await readHeader(weights).catch((cause: unknown) => {
    throw new ServerError('model-bad-weights', messageOf(cause), { cause });
  });
  checkWeights(header, config, weights);
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    try {
      JSON.parse(await readFile(join(folder, name), 'utf8'));
    } catch (cause) {
      throw new ServerError('model-bad-config', `${join(folder, name)} is not JSON; fetch it again.`, { cause });
    }
  }
  const files = await Promise.all(
    MODEL_FILES.map((name) => describeFile(join(folder, name), { kind: 'model', task: null, name })),
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
