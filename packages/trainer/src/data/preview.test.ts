import { beforeAll, describe, expect, it } from 'vitest';
import { CHATML, STORIES_VOCABULARY, storiesTokenizer } from '../model/test-tokenizers.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';
import { encodeRows } from './examples.ts';
import { previewExample, previewExamples, renderPreview } from './preview.ts';

describe('a preview', () => {
  let tokenizer: TextTokenizer;
  beforeAll(async () => {
    tokenizer = await storiesTokenizer(['<|im_start|>', '<|im_end|>'], { chat_template: CHATML });
  });
  const encode = (length: number) =>
    encodeRows(
      [
        { kind: 'text', prompt: 'the cat', completion: 'sat 🦆' },
        { kind: 'text', prompt: 'the dog', completion: 'ran and ran and ran and ran' },
        { kind: 'tokens', inputIds: [1, 2], labels: [-100, -100] },
      ],
      { config: { vocabSize: STORIES_VOCABULARY }, tokenizer },
      length,
    );

  it('names every token and tells which are learnt', () => {
    const { examples } = encode(64);
    const [example = { inputIds: [], labels: [], targets: 0 }] = examples;
    const preview = previewExample(example, tokenizer);
    const prompt = 1 + tokenizer.encode('the cat').length;
    expect(preview.tokens.map(({ id }) => id)).toEqual(example.inputIds);
    expect(preview.tokens.map(({ labelled }) => labelled)).toEqual(example.inputIds.map((_, t) => t >= prompt));
    expect(preview.tokens[0]).toEqual({ token: '<s>', id: 1, labelled: false });
    expect(preview.tokens.at(-1)).toEqual({ token: '</s>', id: 2, labelled: true });
    expect(preview.tokens.map(({ token }) => token)).toContain('<0xF0>');
    expect(preview.spans).toEqual([
      { text: '<s> the cat', labelled: false },
      { text: ' sat 🦆</s>', labelled: true },
    ]);
    expect([preview.length, preview.targets]).toEqual([example.inputIds.length, example.targets]);
  });

  it('does not call a first token learnt: nothing predicts it', () => {
    const example = { inputIds: [5, 6], labels: [5, 6], targets: 1 };
    expect(previewExample(example, null).tokens).toEqual([
      { token: '5', id: 5, labelled: false },
      { token: '6', id: 6, labelled: true },
    ]);
    expect(previewExample(example, null).spans.map(({ text }) => text)).toEqual(['5', '6']);
  });

  it('marks labelled text without colour and counts over all rows', () => {
    const encoded = encode(15);
    const preview = previewExamples(encoded, tokenizer, 1);
    const [first, second] = encoded.examples;
    const length = (first?.inputIds.length ?? 0) + (second?.inputIds.length ?? 0);
    const targets = (first?.targets ?? 0) + (second?.targets ?? 0);
    expect(preview).toMatchObject({ total: 2, tokens: length, targets, longest: 15, truncated: 1, unlabelled: 1 });
    expect(renderPreview(preview)).toBe(
      [
        `Example 1: ${first?.inputIds.length} tokens, ${first?.targets} labelled`,
        '<s> the cat⟦ sat 🦆</s>⟧',
        '',
        '1 of 2 examples shown; text between ⟦ and ⟧ is learnt.',
        `${length} tokens, ${targets} of them labelled; the longest example has 15.`,
        '1 rows cut to the sequence length, 1 left out with nothing labelled.',
      ].join('\n'),
    );
  });
});
