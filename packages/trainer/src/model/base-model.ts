// A base model opened from the files of a Hugging Face folder: configuration, tokenizer, and weights that are read from
// their files piece by piece when somebody wants them.
import {
  type ByteSource,
  type Checkpoint,
  FormatError,
  inMemory,
  type ModelConfig,
  openCheckpoint,
} from '@weft/formats';
import { z } from 'zod';
import { TrainerError } from '../errors.ts';
import { loadTokenizer, type TextTokenizer } from './tokenizer.ts';

export interface BaseModel {
  readonly config: ModelConfig;
  readonly checkpoint: Checkpoint;
  /** null when the folder has no tokenizer: enough for rows that are already tokens. */
  readonly tokenizer: TextTokenizer | null;
}

/** Files of a model folder that is not sharded; tokenizer.json and tokenizer_config.json come as a pair or not at all. */
export const MODEL_FILES = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'] as const;

/** Files read where a folder has them. */
export const OPTIONAL_MODEL_FILES = [
  'generation_config.json',
  'chat_template.jinja',
  'special_tokens_map.json',
] as const;

const generationSchema = z.object({ eos_token_id: z.union([z.int(), z.array(z.int())]).nullish() });

/** Chat models end a turn with tokens that only generation_config.json names. */
function endTokens(config: ModelConfig, generationConfig: Uint8Array | null): readonly number[] {
  if (!generationConfig) return config.eosTokenIds;
  let parsed: z.output<typeof generationSchema>;
  try {
    parsed = generationSchema.parse(JSON.parse(new TextDecoder().decode(generationConfig)));
  } catch (cause) {
    throw new FormatError('model-config', 'generation_config.json is malformed; fetch it again.', { cause });
  }
  return [...new Set([...config.eosTokenIds, ...[parsed.eos_token_id ?? []].flat()])];
}

/**
 * Opens a model from its files by name, in memory or read in parts. Throws FormatError 'model-missing', 'model-config',
 * 'unsupported-architecture', 'model-tensor' or a safetensors code, each naming the file or tensor at fault.
 */
export async function loadModel(files: ReadonlyMap<string, Uint8Array | ByteSource>): Promise<BaseModel> {
  const sources = new Map(
    [...files].map(([name, file]) => [name, file instanceof Uint8Array ? inMemory(file) : file] as const),
  );
  const read = async (name: string): Promise<Uint8Array | null> => {
    const source = sources.get(name);
    return source ? await source.read(0, source.size) : null;
  };
  const checkpoint = await openCheckpoint(sources);
  const config = {
    ...checkpoint.config,
    eosTokenIds: endTokens(checkpoint.config, await read('generation_config.json')),
  };
  const tokenizerJson = await read('tokenizer.json');
  if (!tokenizerJson) return { config, checkpoint, tokenizer: null };
  const tokenizerConfig = await read('tokenizer_config.json');
  if (!tokenizerConfig) {
    throw new FormatError(
      'model-missing',
      `The model has no tokenizer_config.json. A model folder holds ${MODEL_FILES.join(', ')}.`,
    );
  }
  const extras = {
    chatTemplate: (await read('chat_template.jinja')) ?? undefined,
    specialTokensMap: (await read('special_tokens_map.json')) ?? undefined,
  };
  return { config, checkpoint, tokenizer: loadTokenizer(tokenizerJson, tokenizerConfig, config, extras) };
}

/** The model's tokenizer. Throws TrainerError 'no-tokenizer'. */
export function requireTokenizer(model: Pick<BaseModel, 'tokenizer'>): TextTokenizer {
  if (model.tokenizer) return model.tokenizer;
  throw new TrainerError(
    'no-tokenizer',
    'The model folder has no tokenizer.json, so only rows with input_ids can be used.',
  );
}
