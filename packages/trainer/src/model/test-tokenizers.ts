// Tokenizers for tests in the three styles models have: SentencePiece-like (the real one of stories260K), the same with
// chat tokens and a template, and byte-level BPE as GPT-2, Llama 3 and Qwen use it. Templates are short texts of our own.
import { readAsset, readJsonAsset } from '@weft/wgsl-kernels/testing';
import { loadTokenizer, type TextTokenizer, type TokenizerExtras } from './tokenizer.ts';

const encoder = new TextEncoder();
const json = (value: unknown) => encoder.encode(JSON.stringify(value));

interface TokenizerJson {
  added_tokens: { id: number; content: string; special: boolean }[];
  model: { vocab: Record<string, number> };
  [field: string]: unknown;
}

const added = (id: number, content: string) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

/** The vocabulary of {@link storiesTokenizer}s: 512 words and what the caller adds, fewer than 8 tokens. */
export const STORIES_VOCABULARY = 520;

/** The tokenizer of stories260K with special tokens from id 512 on, and its configuration changed as given. */
export async function storiesTokenizer(
  specialTokens: readonly string[] = [],
  config: Record<string, unknown> = {},
  extras: TokenizerExtras = {},
): Promise<TextTokenizer> {
  const base = await readJsonAsset<TokenizerJson>('assets/models/stories260K/tokenizer.json');
  const given = JSON.parse(
    new TextDecoder().decode(await readAsset('assets/models/stories260K/tokenizer_config.json')),
  ) as Record<string, unknown>;
  const added_tokens = [...base.added_tokens, ...specialTokens.map((content, i) => added(512 + i, content))];
  return loadTokenizer(
    json({ ...base, added_tokens }),
    json({ ...given, ...config }),
    { bosTokenId: 1, eosTokenIds: [2] },
    extras,
  );
}

/** GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on. */
function byteAlphabet(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(printable ? byte : next++);
  });
}

/** Names and ids of {@link byteLevelTokenizer}: byte b is token b, " t" is 256, "he" 257, " the" 258, specials from 259. */
export function byteLevelTokenizer(
  specialTokens: readonly string[],
  config: Record<string, unknown> = {},
  postProcessor: unknown = null,
): TextTokenizer {
  const alphabet = byteAlphabet();
  const space = alphabet[32];
  const words = [...alphabet, `${space}t`, 'he', `${space}the`];
  const tokenizerJson = {
    version: '1.0',
    added_tokens: specialTokens.map((content, i) => added(words.length + i, content)),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: postProcessor,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      merges: [`${space} t`, 'h e', `${space}t he`],
    },
  };
  return loadTokenizer(json(tokenizerJson), json(config), { bosTokenId: null, eosTokenIds: [] });
}

/** In the style of ChatML (Qwen, SmolLM2): a role, its content, an end token and a newline. No BOS. */
export const CHATML =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** In the style of Llama 3: BOS, headers, contents trimmed, an end-of-turn token. */
export const LLAMA3 =
  '{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}' +
  '{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}';

/** In the style of Mistral: BOS, instructions in brackets that are plain text, answers ended by EOS; roles alternate. */
export const MISTRAL =
  '{{ bos_token }}{% for m in messages %}' +
  "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}" +
  "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}" +
  "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}";
