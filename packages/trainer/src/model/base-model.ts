// A base model read from the files of a Hugging Face folder: configuration, float32 weights, tokenizer.
import {
  FormatError,
  type ModelConfig,
  modelTensors,
  parseModelConfig,
  readSafetensors,
  toFloat32,
} from '@weft/formats';
import { TrainerError } from '../errors.ts';
import { loadTokenizer, type TextTokenizer } from './tokenizer.ts';

export interface BaseModel {
  readonly config: ModelConfig;
  /** Every tensor of modelTensors(config), float32, by Hugging Face name. */
  readonly weights: ReadonlyMap<string, Float32Array>;
  /** null when the folder has no tokenizer: enough for rows that are already tokens. */
  readonly tokenizer: TextTokenizer | null;
}

/** Files a model folder must have; tokenizer.json and tokenizer_config.json come as a pair or not at all. */
export const MODEL_FILES = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'] as const;

/**
 * Reads a model from its files by name. Throws FormatError 'model-missing', 'model-config', 'unsupported-architecture',
 * 'model-tensor' or a safetensors code, each naming the file or tensor at fault.
 */
export function loadModel(files: ReadonlyMap<string, Uint8Array>): BaseModel {
  const need = (name: string): Uint8Array => {
    const bytes = files.get(name);
    if (!bytes)
      throw new FormatError(
        'model-missing',
        `The model has no ${name}. A model folder holds ${MODEL_FILES.join(', ')}.`,
      );
    return bytes;
  };
  const config = parseModelConfig(new TextDecoder().decode(need('config.json')));
  const { tensors } = readSafetensors(need('model.safetensors'), 'model.safetensors');
  const weights = new Map<string, Float32Array>();
  for (const { name, shape } of modelTensors(config)) {
    const tensor = tensors.get(name);
    if (!tensor) throw new FormatError('model-tensor', `model.safetensors has no ${name}, which config.json promises.`);
    if (tensor.shape.join() !== shape.join()) {
      throw new FormatError(
        'model-tensor',
        `model.safetensors: ${name} is [${tensor.shape}] where config.json promises [${shape}].`,
      );
    }
    weights.set(name, toFloat32(tensor, name));
  }
  const tokenizerJson = files.get('tokenizer.json');
  const tokenizer = tokenizerJson ? loadTokenizer(tokenizerJson, need('tokenizer_config.json'), config) : null;
  return { config, weights, tokenizer };
}

/** The model's tokenizer. Throws TrainerError 'no-tokenizer'. */
export function requireTokenizer(model: BaseModel): TextTokenizer {
  if (model.tokenizer) return model.tokenizer;
  throw new TrainerError(
    'no-tokenizer',
    'The model folder has no tokenizer.json, so only rows with input_ids can be used.',
  );
}
