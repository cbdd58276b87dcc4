import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { byteLevelTokenizer, storiesTokenizer } from './model/test-tokenizers.ts';
import type { TextTokenizer } from './model/tokenizer.ts';
import { type StopRules, TextStream } from './text-stream.ts';

describe.each(['SentencePiece-like', 'byte-level'])('streamed text of a %s tokenizer', (kind) => {
  let tokenizer: TextTokenizer;
  /** Any id but the special ones' share, so that bytes come in any order. */
  let vocabulary: number;
  beforeAll(async () => {
    tokenizer = kind === 'byte-level' ? byteLevelTokenizer(['<|end|>']) : await storiesTokenizer();
    vocabulary = kind === 'byte-level' ? 260 : 512;
  });

  /** Everything the stream says, piece by piece, the rest last. */
  const stream = (ids: readonly number[], stops: StopRules = {}, after: readonly number[] = []) => {
    const text = new TextStream(tokenizer, stops, after);
    const pieces = ids.map((id) => text.push(id));
    return { pieces: [...pieces, text.finish()], stopped: text.stopped };
  };
  /** The token that is this letter alone, without a space before it. */
  const letters = (text: string) => {
    const pieces = tokenizer.pieces(Array.from({ length: vocabulary }, (_, id) => id));
    return [...text].map((letter) => pieces.indexOf(letter));
  };
  const texts = fc.string({ unit: 'binary', maxLength: 30 }).map((text) => text.replaceAll('\uFFFD', '?'));

  it('says exactly the text, never part of a character', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const { pieces } = stream(tokenizer.encode(text));
        expect(pieces.join('')).toBe(tokenizer.decode(tokenizer.encode(text)));
        for (const piece of pieces) expect(piece).not.toMatch(/\uFFFD|\p{Surrogate}/u);
      }),
    );
  });

  it('says of any tokens what decoding them together says, but for a character cut off by the end', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 10_000 }), { maxLength: 30 }), (numbers) => {
        const ids = numbers.map((n) => n % vocabulary);
        expect(stream(ids).pieces.join('')).toBe(tokenizer.decode(ids).replace(/\uFFFD+$/, ''));
      }),
    );
  });

  it('waits for the last token of a character, and drops one that is not finished', () => {
    const ids = tokenizer.encode('a🦆');
    const { pieces } = stream(ids);
    expect(pieces.slice(-2)).toEqual(['🦆', '']);
    expect(pieces.slice(-5, -2)).toEqual(['', '', '']);
    expect(stream(ids.slice(0, -1)).pieces.join('')).toBe('a');
  });

  it('stops before a stop string wherever tokens divide it, and shows nothing of it', () => {
    fc.assert(
      fc.property(
        texts,
        fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 4 }),
        texts,
        (head, stop, tail) => {
          const whole = tokenizer.decode(tokenizer.encode(head + stop + tail));
          fc.pre(whole.includes(stop));
          const { pieces, stopped } = stream(tokenizer.encode(head + stop + tail), { strings: [stop] });
          expect(pieces.join('')).toBe(whole.slice(0, whole.indexOf(stop)));
          expect(stopped).toBe('string');
        },
      ),
    );
  });

  it('holds back what may begin a stop string, and gives it out when it does not', () => {
    const ids = letters('xabcabd');
    const { pieces, stopped } = stream(ids, { strings: ['abd', 'cabx'] });
    expect(pieces).toEqual(['x', '', '', 'ab', '', '', 'c', '']);
    expect(stopped).toBe('string');
    const open = stream(ids.slice(0, 3), { strings: ['abd'] });
    expect(open).toEqual({ pieces: ['x', '', '', 'ab'], stopped: null });
  });

  it('stops at a stop token, giving out what was held back', () => {
    const [x = 0, a = 0, b = 0] = letters('xab');
    const text = new TextStream(tokenizer, { tokens: [b], strings: ['ab'] });
    expect([text.push(x), text.push(a), text.stopped]).toEqual(['x', '', null]);
    expect([text.push(b), text.stopped]).toEqual(['a', 'token']);
    expect([text.push(x), text.finish()]).toEqual(['', '']);
  });

  it('continues a prompt with the space between', () => {
    const ids = tokenizer.encode('say the');
    const prompt = tokenizer.encode('say');
    expect(ids.slice(0, prompt.length)).toEqual(prompt);
    expect(stream(ids.slice(prompt.length), {}, prompt).pieces.join('')).toBe(' the');
  });
});

describe('streamed text', () => {
  it('keeps the space of a word after a special token', async () => {
    const tokenizer = await storiesTokenizer(['<|x|>']);
    const ids = [...tokenizer.encode('say'), 512, 512, ...tokenizer.encode('the')];
    const stream = new TextStream(tokenizer);
    expect(ids.map((id) => stream.push(id)).join('')).toBe('say the');
    expect(tokenizer.decode(ids)).toBe('say the');
  });
});
