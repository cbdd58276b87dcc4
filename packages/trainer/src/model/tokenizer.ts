// Text to tokens and back, by the checkpoint's own tokenizer files.
import { Tokenizer } from '@huggingface/tokenizers';
import { FormatError, type ModelConfig } from '@weft/formats';
import { z } from 'zod';

export interface TextTokenizer {
  /** Tokens of the text alone, without special tokens. */
  encode(text: string): number[];
  /** The text of these tokens, special tokens left out. */
  decode(ids: readonly number[]): string;
  /** The token to begin a sequence with; null when the tokenizer's configuration says to add none. */
  readonly bos: number | null;
  /** The token to end a completion with; null when the model has none. */
  readonly eos: number | null;
}

const configSchema = z.object({
  add_bos_token: z.boolean().optional(),
  bos_token: z.unknown().optional(),
  eos_token: z.unknown().optional(),
});

const parse = (name: string, bytes: Uint8Array): object => {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    if (typeof value === 'object' && value !== null) return value;
  } catch (cause) {
    throw new FormatError('model-config', `${name} is not JSON; fetch it again.`, { cause });
  }
  throw new FormatError('model-config', `${name} is not a JSON object; fetch it again.`);
};

/** Special tokens stand in tokenizer_config.json as a string or as `{ content }`. */
const contentOf = (token: unknown): string | null => {
  if (typeof token === 'string') return token;
  const parsed = z.object({ content: z.string() }).safeParse(token);
  return parsed.success ? parsed.data.content : null;
};

/** Throws FormatError 'model-config' when a file is malformed. */
export function loadTokenizer(
  tokenizerJson: Uint8Array,
  tokenizerConfig: Uint8Array,
  model: ModelConfig,
): TextTokenizer {
  const config = parse('tokenizer_config.json', tokenizerConfig);
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(parse('tokenizer.json', tokenizerJson), config);
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(
      'model-config',
      'tokenizer.json describes a tokenizer that cannot be built; fetch it again.',
      { cause },
    );
  }
  const { add_bos_token, bos_token, eos_token } = configSchema.parse(config);
  const idOf = (token: unknown, fallback: number | null): number | null => {
    const content = contentOf(token);
    return (content === null ? undefined : tokenizer.token_to_id(content)) ?? fallback;
  };
  const bos = idOf(bos_token, model.bosTokenId);
  const addsBos = add_bos_token ?? tokenizer.encode('a').ids[0] === bos;
  return {
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => tokenizer.decode([...ids], { skip_special_tokens: true }),
    bos: addsBos ? bos : null,
    eos: idOf(eos_token, model.eosTokenIds[0] ?? null),
  };
}
