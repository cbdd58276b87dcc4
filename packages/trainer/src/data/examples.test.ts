import { type DataRow, parseDataLines } from '@weft/formats';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { byteLevelTokenizer, STORIES_VOCABULARY, storiesTokenizer } from '../model/test-tokenizers.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';
import { type EncodingModel, encodeRows } from './examples.ts';

const line = (row: object) => parseDataLines(JSON.stringify(row));
const failure = (code: string) => expect.objectContaining({ name: 'TrainerError', code });
const modelOf = (tokenizer: TextTokenizer | null): EncodingModel => ({
  config: { vocabSize: STORIES_VOCABULARY },
  tokenizer,
});

let tokenizer: TextTokenizer;
let model: EncodingModel;
beforeAll(async () => {
  tokenizer = await storiesTokenizer();
  model = modelOf(tokenizer);
});

describe('prompts and completions', () => {
  it('are tokenised apart; the completion and the end of text are labelled', () => {
    const row = { prompt: 'Once upon a ti', completion: 'me there was' };
    const { examples, truncated, unlabelled } = encodeRows(line(row), model, 512);
    const prompt = [1, ...tokenizer.encode(row.prompt)];
    const completion = [...tokenizer.encode(row.completion), 2];
    expect([tokenizer.bos, tokenizer.eos]).toEqual([1, 2]);
    expect(examples).toEqual([
      {
        inputIds: [...prompt, ...completion],
        labels: [...prompt.map(() => -100), ...completion],
        targets: completion.length,
      },
    ]);
    expect([truncated, unlabelled]).toEqual([0, 0]);
    // Joined text has other tokens at the seam: the two really were tokenised apart.
    expect(tokenizer.encode(row.prompt + row.completion)).not.toEqual([...prompt, ...completion].slice(1, -1));
  });

  it('lose prompt tokens from the left first, then the tail of the completion, and the row is counted', () => {
    const row = { prompt: 'the cat sat on the mat and looked', completion: ' at the dog' };
    const prompt = tokenizer.encode(row.prompt);
    const completion = [...tokenizer.encode(row.completion), 2];
    const whole = 1 + prompt.length + completion.length;
    expect(encodeRows(line(row), model, whole).truncated).toBe(0);

    const cut = encodeRows(line(row), model, whole - 2);
    expect(cut.truncated).toBe(1);
    expect(cut.examples[0]?.inputIds).toEqual([1, ...prompt.slice(2), ...completion]);

    const tight = encodeRows(line(row), model, completion.length - 1);
    expect(tight.truncated).toBe(1);
    expect(tight.examples[0]?.inputIds).toEqual([1, ...completion.slice(0, completion.length - 2)]);
    expect(tight.examples[0]?.labels[0]).toBe(-100);
  });
});

describe('tokens', () => {
  it('are taken as they are, without a tokenizer', () => {
    const row = { input_ids: [1, 5, 6, 7], labels: [-100, -100, 6, 7] };
    const bare = modelOf(null);
    expect(encodeRows(line(row), bare, 512).examples).toEqual([
      { inputIds: [1, 5, 6, 7], labels: [-100, -100, 6, 7], targets: 2 },
    ]);
    expect(encodeRows(line(row), bare, 3)).toEqual({
      examples: [{ inputIds: [1, 5, 6], labels: [-100, -100, 6], targets: 1 }],
      truncated: 1,
      unlabelled: 0,
    });
  });

  it('with nothing labelled are left out and counted', () => {
    const rows = parseDataLines(
      '{"input_ids": [1, 2], "labels": [-100, -100]}\n{"input_ids": [1, 2], "labels": [-100, 2]}',
    );
    const { examples, unlabelled } = encodeRows(rows, model, 8);
    expect([examples.length, unlabelled]).toEqual([1, 1]);
  });
});

describe('instructions', () => {
  const row: DataRow = { kind: 'instruction', instruction: 'Say {input}', input: 'a $& b', output: 'the' };
  const textOf = (rows: DataRow[], options = {}) => {
    const [example] = encodeRows(rows, model, 4096, options).examples;
    const ids = example?.inputIds ?? [];
    const firstLabel = example?.labels.findIndex((label) => label >= 0) ?? 0;
    return [tokenizer.decode(ids.slice(0, firstLabel)), tokenizer.decode(ids.slice(firstLabel))];
  };

  it('are put as Alpaca puts them, with and without input', () => {
    const [prompt, answer] = textOf([row]);
    expect(prompt).toMatch(
      /^Below is an instruction that describes a task, paired with an input that provides further/,
    );
    expect(prompt).toMatch(/request\.\n\n### Instruction:\nSay \{input\}\n\n### Input:\na \$& b\n\n### Response:$/);
    expect(answer).toBe('the');
    expect(textOf([{ ...row, input: '' }])[0]).toMatch(
      /^Below is an instruction that describes a task\. Write a response that appropriately completes the request\.\n\n### Instruction:\nSay \{input\}\n\n### Response:$/,
    );
  });

  it('or as the caller likes', () => {
    const instructionTemplate = 'Q: {instruction} [{input}] A:';
    expect(textOf([row], { instructionTemplate })).toEqual(['Q: Say {input} [a $& b] A:', 'the']);
    const two = { withInput: 'with {instruction}', withoutInput: 'without {instruction}' };
    expect(textOf([{ ...row, input: '' }], { instructionTemplate: two })[0]).toBe('without Say {input}');
    expect(() => encodeRows([row], model, 64, { instructionTemplate: '{input}' })).toThrow(failure('bad-settings'));
  });
});

describe('plain text', () => {
  const words = fc
    .array(fc.constantFrom('the ', 'cat ', 'sat, ', 'and ', 'zq '), { minLength: 1, maxLength: 60 })
    .map((list) => list.join(''));
  const encode = (text: string, from: EncodingModel, length: number, stride?: number) =>
    encodeRows([{ kind: 'plain', text }], from, length, { stride }).examples;
  /** Tokens the model is trained to predict. */
  const predicted = ({ labels }: { labels: readonly number[] }) => labels.slice(1);

  it('is cut into windows that each begin with BOS and predict every token of the document once', () => {
    fc.assert(
      fc.property(words, fc.integer({ min: 2, max: 40 }), (text, length) => {
        const examples = encode(text, model, length);
        expect(examples.flatMap(predicted)).toEqual([...tokenizer.encode(text), 2]);
        for (const { inputIds, labels } of examples) {
          expect(inputIds.length).toBeLessThanOrEqual(length);
          expect([inputIds[0], labels[0]]).toEqual([1, -100]);
          expect(inputIds.slice(1)).toEqual(labels.slice(1));
        }
        for (const { inputIds } of examples.slice(0, -1)) expect(inputIds).toHaveLength(length);
      }),
    );
  });

  it('without BOS predicts every token but the first once', () => {
    const bytes = byteLevelTokenizer(['<|end|>'], { eos_token: '<|end|>' });
    fc.assert(
      fc.property(words, fc.integer({ min: 2, max: 40 }), (text, length) => {
        const examples = encode(text, modelOf(bytes), length);
        const ids = [...bytes.encode(text), 259];
        expect(examples.flatMap(predicted)).toEqual(ids.slice(1));
        expect(examples[0]?.inputIds[0]).toBe(ids[0]);
        for (const { inputIds } of examples) expect(inputIds.length).toBeLessThanOrEqual(length);
      }),
    );
  });

  it('overlaps by the stride, every token of a window labelled', () => {
    const text = 'the cat sat and the cat sat and the cat';
    const ids = [...tokenizer.encode(text), 2];
    const examples = encode(text, model, 9, 3);
    for (const [i, { inputIds, targets }] of examples.entries()) {
      expect(inputIds).toEqual([1, ...ids.slice(3 * i, 3 * i + 8)]);
      expect(targets).toBe(inputIds.length - 1);
    }
    // The last window reaches the end of the document, the one before does not.
    expect(3 * (examples.length - 1) + 8).toBeGreaterThanOrEqual(ids.length);
    expect(3 * (examples.length - 2) + 8).toBeLessThan(ids.length);
  });

  it('refuses a stride that would skip tokens, or windows without room', () => {
    for (const stride of [0, 1.5, 9])
      expect(() => encode('the cat', model, 9, stride)).toThrow(failure('bad-settings'));
    expect(() => encode('the cat', model, 1)).toThrow(failure('bad-settings'));
  });

  it('is never counted as truncated, and once when nothing of it can be learnt', () => {
    const rows: DataRow[] = [
      { kind: 'plain', text: 'the cat sat and the cat sat' },
      { kind: 'tokens', inputIds: [1, 2], labels: [-100, -100] },
    ];
    expect(encodeRows(rows, model, 4)).toMatchObject({ truncated: 0, unlabelled: 1 });
  });
});

describe('what cannot be used', () => {
  it('is refused by name', () => {
    const attempt = (row: object, from: EncodingModel) => () => encodeRows(line(row), from, 512);
    expect(attempt({ prompt: 'a', completion: 'b' }, modelOf(null))).toThrow(failure('no-tokenizer'));
    const stray = { input_ids: [1, 520], labels: [1, 2] };
    expect(attempt(stray, model)).toThrow(failure('token-range'));
    expect(attempt(stray, model)).toThrow(/Row 1 has token 520/);
    expect(attempt({ input_ids: [1, 2], labels: [1, 520] }, model)).toThrow(failure('token-range'));
    expect(attempt({ input_ids: [1, 2], labels: [1, -100] }, model)).toThrow(failure('no-targets'));
  });
});
