import { beforeAll, describe, expect, it } from 'vitest';
import { byteLevelTokenizer, CHATML, storiesTokenizer } from './test-tokenizers.ts';
import { loadTokenizer, type TextTokenizer } from './tokenizer.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const post = (...tokens: string[]) => ({
  type: 'TemplateProcessing',
  single: [...tokens.map((id) => ({ SpecialToken: { id, type_id: 0 } })), { Sequence: { id: 'A', type_id: 0 } }],
  pair: [],
  special_tokens: {},
});

describe('a SentencePiece-like tokenizer', () => {
  let tokenizer: TextTokenizer;
  beforeAll(async () => {
    tokenizer = await storiesTokenizer();
  });

  it('gives text back exactly, and nothing for no tokens', () => {
    for (const text of ['Once upon a time', ' two  spaces ', 'Zoë , the 🦆 !', 'the'])
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.decode([1, 2])).toBe('');
    expect(tokenizer.decode([1, 9999, ...tokenizer.encode('a')])).toBe('a');
  });

  it('spells tokens as they stand within a text', () => {
    const ids = tokenizer.encode('the cat');
    const pieces = tokenizer.pieces([1, ...ids, 2]);
    expect(pieces).toHaveLength(ids.length + 2);
    expect(pieces.join('')).toBe('<s> the cat</s>');
    expect(tokenizer.pieces(tokenizer.encode('🦆')).slice(-4)).toEqual(['<0xF0>', '<0x9F>', '<0xA6>', '<0x86>']);
    expect(tokenizer.pieces([9999])).toEqual(['<9999>']);
    expect(tokenizer.decodeWithin([1, ...tokenizer.encode('the 🦆')])).toBe('<s> the 🦆');
    expect(tokenizer.decodeWithin([])).toBe('');
  });

  it('names its special tokens', () => {
    expect([...tokenizer.specialTokens]).toEqual([
      ['<unk>', 0],
      ['<s>', 1],
      ['</s>', 2],
    ]);
  });
});

describe('a byte-level tokenizer', () => {
  const tokenizer = byteLevelTokenizer(['<|end|>'], { eos_token: '<|end|>' });

  it('gives text back exactly, a space before punctuation included', () => {
    for (const text of ['the end .', ' Zoë 🦆', "do n't"]) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  it('spells tokens, parts of characters by their names', () => {
    expect(tokenizer.encode('a the')).toEqual([97, 258]);
    expect(tokenizer.pieces([97, 258, 0xc3, 0xab, 259])).toEqual(['a', ' the', 'Ã', '«', '<|end|>']);
    expect(tokenizer.decodeWithin([258, 0xc3, 0xab, 259])).toBe(' theë<|end|>');
  });
});

describe('the token to begin with', () => {
  const begins = (config: object, post_processor: unknown) =>
    byteLevelTokenizer(['<|begin|>', '<|end|>'], { ...config }, post_processor).bos;

  it('is the one the configuration asks for, whatever the post-processor does (Llama 2, Mistral, Qwen)', () => {
    expect(begins({ add_bos_token: true, bos_token: '<|begin|>' }, null)).toBe(259);
    expect(begins({ add_bos_token: false, bos_token: '<|begin|>' }, post('<|begin|>'))).toBeNull();
    expect(begins({ add_bos_token: false, bos_token: null }, { type: 'ByteLevel' })).toBeNull();
    expect(begins({ add_bos_token: true, bos_token: { content: '<|begin|>', lstrip: false } }, null)).toBe(259);
  });

  it('is else the one the post-processor adds (Llama 3), or none (SmolLM2)', () => {
    const llama3 = { type: 'Sequence', processors: [{ type: 'ByteLevel' }, post('<|begin|>')] };
    expect(begins({ bos_token: '<|begin|>' }, llama3)).toBe(259);
    expect(begins({ add_bos_token: null, bos_token: '<|begin|>' }, llama3)).toBe(259);
    expect(begins({ bos_token: '<|begin|>' }, { type: 'ByteLevel' })).toBeNull();
    expect(begins({ bos_token: '<|begin|>' }, null)).toBeNull();
  });

  it('and the end token may be named by special_tokens_map.json', async () => {
    const map = bytes(JSON.stringify({ bos_token: '<s>', eos_token: { content: '<unk>' } }));
    const config = { bos_token: undefined, eos_token: undefined };
    expect((await storiesTokenizer([], config, { specialTokensMap: map })).eos).toBe(0);
    // tokenizer_config.json goes first, config.json last.
    expect((await storiesTokenizer([], { eos_token: '</s>' }, { specialTokensMap: map })).eos).toBe(2);
    expect((await storiesTokenizer([], config)).eos).toBe(2);
  });
});

describe('the chat template', () => {
  const hello = [{ role: 'user', content: 'hi' }];
  const rendered = async (chat_template: unknown, file?: string) => {
    const extras = file === undefined ? {} : { chatTemplate: bytes(file) };
    const tokenizer = await storiesTokenizer([], { chat_template }, extras);
    return tokenizer.chatTemplate?.render(hello) ?? null;
  };

  it('is a string, the default of several, or a file that goes first', async () => {
    expect(await rendered(undefined)).toBeNull();
    expect(await rendered(null)).toBeNull();
    expect(await rendered(CHATML)).toBe('<|im_start|>user\nhi<|im_end|>\n');
    const named = [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'plain {{ messages[0].content }}' },
    ];
    expect(await rendered(named)).toBe('plain hi');
    expect(await rendered(named.slice(0, 1))).toBe('tools');
    expect(await rendered(CHATML, 'from the file')).toBe('from the file');
  });

  it('knows the special tokens by their roles', async () => {
    expect(await rendered('{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}')).toBe('<s>|</s>|<unk>|');
  });
});

describe('malformed files', () => {
  const model = { bosTokenId: null, eosTokenIds: [] };
  it.each([
    ['{', '{}', /tokenizer\.json is not a JSON object/],
    ['{}', '[]', /tokenizer_config\.json is not a JSON object/],
    ['{}', '{}', /cannot be built/],
    ['{}', '{"add_bos_token": "yes"}', /tokenizer_config\.json: add_bos_token/],
  ])('%s with %s are refused by name', (tokenizerJson, config, message) => {
    const load = () => loadTokenizer(bytes(tokenizerJson), bytes(config), model);
    expect(load).toThrow(expect.objectContaining({ name: 'FormatError', code: 'model-config' }));
    expect(load).toThrow(message);
  });
});
