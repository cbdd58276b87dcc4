import { parseDataLines } from '@weft/formats';
import { readAsset } from '@weft/wgsl-kernels/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { type BaseModel, loadModel, MODEL_FILES, requireTokenizer } from '../model/base-model.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';
import { encodeRows } from './examples.ts';

const line = (row: object) => parseDataLines(JSON.stringify(row));

describe('rows to examples', () => {
  let model: BaseModel;
  let tokenizer: TextTokenizer;
  beforeAll(async () => {
    const read = async (file: string) => [file, await readAsset(`assets/models/stories260K/${file}`)] as const;
    model = loadModel(new Map(await Promise.all(MODEL_FILES.map(read))));
    tokenizer = requireTokenizer(model);
  });

  it('tokenises prompt and completion apart, labels the completion and the end of text', () => {
    const row = { prompt: 'Once upon a ti', completion: 'me there was' };
    const { examples, truncated, unlabelled } = encodeRows(line(row), model, 512);
    const prompt = [tokenizer.bos, ...tokenizer.encode(row.prompt)];
    const completion = [...tokenizer.encode(row.completion), tokenizer.eos];
    expect(tokenizer.bos).toBe(1);
    expect(tokenizer.eos).toBe(2);
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

  it('cuts prompt tokens from the left first, then the tail of the completion, and counts the row', () => {
    const row = { prompt: 'the cat sat on the mat and looked', completion: ' at the dog' };
    const prompt = tokenizer.encode(row.prompt);
    const completion = [...tokenizer.encode(row.completion), tokenizer.eos];
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

  it('takes rows of tokens as they are, without a tokenizer', () => {
    const row = { input_ids: [1, 5, 6, 7], labels: [-100, -100, 6, 7] };
    const bare = { ...model, tokenizer: null };
    expect(encodeRows(line(row), bare, 512).examples).toEqual([
      { inputIds: [1, 5, 6, 7], labels: [-100, -100, 6, 7], targets: 2 },
    ]);
    expect(encodeRows(line(row), bare, 3)).toEqual({
      examples: [{ inputIds: [1, 5, 6], labels: [-100, -100, 6], targets: 1 }],
      truncated: 1,
      unlabelled: 0,
    });
  });

  it('leaves out and counts rows in which nothing is labelled', () => {
    const rows = parseDataLines(
      '{"input_ids": [1, 2], "labels": [-100, -100]}\n{"input_ids": [1, 2], "labels": [-100, 2]}',
    );
    const { examples, unlabelled } = encodeRows(rows, model, 8);
    expect([examples.length, unlabelled]).toEqual([1, 1]);
  });

  it('refuses by name what it cannot use', () => {
    const code = (expected: string) => expect.objectContaining({ name: 'TrainerError', code: expected });
    const attempt = (row: object, from: BaseModel) => () => encodeRows(line(row), from, 512);
    expect(attempt({ prompt: 'a', completion: 'b' }, { ...model, tokenizer: null })).toThrow(code('no-tokenizer'));
    expect(attempt({ input_ids: [1, 512], labels: [1, 2] }, model)).toThrow(code('token-range'));
    expect(attempt({ input_ids: [1, 512], labels: [1, 2] }, model)).toThrow(/Row 1 has token 512/);
    expect(attempt({ input_ids: [1, 2], labels: [1, -100] }, model)).toThrow(code('no-targets'));
  });
});
