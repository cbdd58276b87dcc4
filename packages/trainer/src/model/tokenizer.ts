// Text to tokens and back, by the checkpoint's own tokenizer files. Special tokens are never added unasked: whoever builds
// a sequence places `bos` and `eos`, or lets the chat template.
import { Tokenizer } from '@huggingface/tokenizers';
import { FormatError, type ModelConfig } from '@weft/formats';
import { z } from 'zod';
import { type ChatTemplate, chatTemplate } from './chat-template.ts';

export interface TextTokenizer {
  /** Tokens of the text alone. A special token's name in the text becomes that token. */
  encode(text: string): number[];
  /** The text of these tokens, special tokens left out; exactly, spaces before punctuation included. */
  decode(ids: readonly number[]): string;
  /** The same within a longer text: a first word keeps its leading space, special tokens stand by name. */
  decodeWithin(ids: readonly number[]): string;
  /** Each token for a reader: its text within a longer one, or its name in the vocabulary when it is part of a character. */
  pieces(ids: readonly number[]): string[];
  /** The token to begin a sequence with; null when the tokenizer's configuration says to add none. */
  readonly bos: number | null;
  /** The token to end a completion with; null when the model has none. */
  readonly eos: number | null;
  /** Names and ids of tokens that are no text, such as `<s>` and `<|im_end|>`. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** How the model writes conversations; null when it was not published with a template. */
  readonly chatTemplate: ChatTemplate | null;
}

/** Files some models have beside tokenizer.json and tokenizer_config.json. */
export interface TokenizerExtras {
  /** special_tokens_map.json: names what tokenizer_config.json does not. */
  readonly specialTokensMap?: Uint8Array | undefined;
  /** chat_template.jinja: goes before the template in tokenizer_config.json. */
  readonly chatTemplate?: Uint8Array | undefined;
}

const configSchema = z.looseObject({
  add_bos_token: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))]).nullish(),
});

const textOf = (name: string, bytes: Uint8Array): string => {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError('model-config', `${name} is not UTF-8 text; fetch it again.`, { cause });
  }
};

const parseObject = (name: string, bytes: Uint8Array): Record<string, unknown> => {
  const text = textOf(name, bytes);
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch (cause) {
    throw new FormatError('model-config', `${name} is not a JSON object; fetch it again.`, { cause });
  }
};

/** `bos_token` and its like, by name. They stand as a string or as `{ content }`. */
function namedTokens(config: Record<string, unknown>): Record<string, string> {
  const tokenSchema = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]);
  return Object.fromEntries(
    Object.entries(config).flatMap(([name, value]) => {
      const token = name.endsWith('_token') ? tokenSchema.safeParse(value) : null;
      return token?.success ? [[name, token.data]] : [];
    }),
  );
}

/** The template for plain conversations: of several, the one named `default`. */
function templateOf(config: z.infer<typeof configSchema>, file: Uint8Array | undefined): string | null {
  if (file) return textOf('chat_template.jinja', file);
  const { chat_template: given } = config;
  if (typeof given === 'string' || !given) return given || null;
  return (
    (given.find(({ name }) => name === 'default') ?? (given.length === 1 ? given[0] : undefined))?.template ?? null
  );
}

/** Throws FormatError 'model-config' when a file is malformed. */
export function loadTokenizer(
  tokenizerJson: Uint8Array,
  tokenizerConfig: Uint8Array,
  model: Pick<ModelConfig, 'bosTokenId' | 'eosTokenIds'>,
  extras: TokenizerExtras = {},
): TextTokenizer {
  const parsed = configSchema.safeParse(parseObject('tokenizer_config.json', tokenizerConfig));
  if (!parsed.success) {
    const { path = [], message } = parsed.error.issues[0] ?? {};
    throw new FormatError('model-config', `tokenizer_config.json: ${path.join('.')}: ${message}.`);
  }
  const config = parsed.data;
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(parseObject('tokenizer.json', tokenizerJson), config);
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(
      'model-config',
      'tokenizer.json describes a tokenizer that cannot be built; fetch it again.',
      { cause },
    );
  }
  const names = {
    ...(extras.specialTokensMap ? namedTokens(parseObject('special_tokens_map.json', extras.specialTokensMap)) : {}),
    ...namedTokens(config),
  };
  const idOf = (token: string | undefined, fallback: number | null): number | null =>
    (token === undefined ? undefined : tokenizer.token_to_id(token)) ?? fallback;

  const encode = (text: string) => tokenizer.encode(text, { add_special_tokens: false }).ids;
  const decodeAll = (ids: readonly number[], skipSpecial: boolean): string => {
    // A vocabulary padded to a round size has ids that are no token.
    const known = ids.filter((id) => tokenizer.id_to_token(id) !== undefined);
    if (known.length === 0) return '';
    return tokenizer.decode(known, { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false });
  };
  const anchor = encode('a').slice(-1);
  const decodeWithin = (ids: readonly number[]): string =>
    decodeAll([...anchor, ...ids], false).slice(decodeAll(anchor, false).length);

  const source = templateOf(config, extras.chatTemplate);
  return {
    encode,
    decode: (ids) => decodeAll(ids, true),
    decodeWithin,
    pieces: (ids) =>
      ids.map((id) => {
        const text = decodeWithin([id]);
        return text === '' || text.includes('\uFFFD') ? (tokenizer.id_to_token(id) ?? `<${id}>`) : text;
      }),
    bos: bosOf(tokenizer, config.add_bos_token ?? null, idOf(names.bos_token, model.bosTokenId)),
    eos: idOf(names.eos_token, model.eosTokenIds[0] ?? null),
    specialTokens: new Map(
      [...tokenizer.get_added_tokens_decoder().values()]
        .filter(({ special }) => special)
        .map(({ content, id }) => [content, id]),
    ),
    chatTemplate: source === null ? null : chatTemplate(source, names),
  };
}

/**
 * `add_bos_token` decides where a model has it (Llama 2, Mistral, Qwen); elsewhere the post-processor of tokenizer.json
 * does (Llama 3), and one that adds nothing leaves a sequence without (SmolLM2), even where the model names a BOS token.
 */
function bosOf(tokenizer: Tokenizer, addBosToken: boolean | null, named: number | null): number | null {
  if (addBosToken !== null) return addBosToken ? named : null;
  const plain = tokenizer.encode('a', { add_special_tokens: false }).ids;
  const processed = tokenizer.encode('a').ids;
  return processed.length > plain.length && processed[0] !== plain[0] ? (processed[0] ?? null) : null;
}
