import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseDataLines } from './data-lines.ts';

describe('parseDataLines', () => {
  it('reads both kinds of rows, blank lines and either line end', () => {
    const text = '{"prompt": "a", "completion": "b"}\r\n\n{"input_ids": [1, 5], "labels": [-100, 5]}\n';
    expect(parseDataLines(text)).toEqual([
      { kind: 'text', prompt: 'a', completion: 'b' },
      { kind: 'tokens', inputIds: [1, 5], labels: [-100, 5] },
    ]);
  });

  it('gives back any text, whatever characters it holds', () => {
    const row = fc.record({ prompt: fc.string({ unit: 'grapheme' }), completion: fc.string({ minLength: 1 }) });
    fc.assert(
      fc.property(fc.array(row, { minLength: 1 }), (rows) => {
        const text = rows.map((value) => JSON.stringify(value)).join('\n');
        expect(parseDataLines(text)).toEqual(rows.map((value) => ({ kind: 'text', ...value })));
      }),
    );
  });

  it.each(['stories260K/golden-lora/data.jsonl', 'babyllama-105/golden-lora/data.jsonl'])('reads %s', (path) => {
    const text = readFileSync(new URL(`../../../assets/models/${path}`, import.meta.url), 'utf8');
    const rows = parseDataLines(text, path);
    expect(rows.length).toBe(text.trim().split('\n').length);
  });

  const lines: [string, string, RegExp][] = [
    ['no JSON', '{"prompt": "a"', /is not JSON/],
    ['a number', '7', /is not a JSON object/],
    ['null', 'null', /is not a JSON object/],
    ['an array', '[1]', /is not a JSON object/],
    ['no completion', '{"prompt": "a"}', /completion/],
    ['an empty completion', '{"prompt": "a", "completion": ""}', /completion: must not be empty/],
    ['a prompt that is no text', '{"prompt": 1, "completion": "b"}', /prompt/],
    ['no labels', '{"input_ids": [1]}', /labels/],
    ['no tokens', '{"input_ids": [], "labels": []}', /input_ids/],
    ['labels of another length', '{"input_ids": [1, 2], "labels": [1]}', /differ in length/],
    ['a token that is no number', '{"input_ids": ["a"], "labels": [1]}', /input_ids\.0/],
    ['a negative token', '{"input_ids": [-1], "labels": [1]}', /input_ids\.0/],
    ['a fraction', '{"input_ids": [1.5], "labels": [1]}', /input_ids\.0/],
    ['a label below −100', '{"input_ids": [1], "labels": [-101]}', /labels\.0/],
    ['a label between', '{"input_ids": [1], "labels": [-7]}', /neither a token nor −100/],
  ];
  it.each(lines)('names the line that has %s', (_, line, message) => {
    const read = () => parseDataLines(`{"prompt": "", "completion": "b"}\n\n${line}\n`, 'mine.jsonl');
    expect(read).toThrow(expect.objectContaining({ name: 'FormatError', code: 'data-line' }));
    expect(read).toThrow(/^Line 3 of mine\.jsonl: /);
    expect(read).toThrow(message);
  });

  it('refuses a file without a row', () => {
    for (const text of ['', '\n \n']) {
      expect(() => parseDataLines(text, 'mine.jsonl')).toThrow(expect.objectContaining({ code: 'data-empty' }));
      expect(() => parseDataLines(text, 'mine.jsonl')).toThrow(/no row in mine\.jsonl/);
    }
  });
});
