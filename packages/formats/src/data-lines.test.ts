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

  it('reads conversations, instructions and plain text', () => {
    const messages = [
      { role: 'system', content: '' },
      { role: 'user', content: 'a', name: 'left out' },
      { role: 'assistant', content: 'b', tool_calls: [] },
      { role: 'tool', content: 'c' },
      { role: 'assistant', content: 'd' },
    ];
    const lines = [
      { messages },
      { instruction: 'a', input: 'b', output: 'c', text: "Alpaca's own prompt" },
      { instruction: 'a', output: 'c' },
      { instruction: 'a', input: null, output: 'c' },
      { text: 'a' },
    ];
    const rows = parseDataLines(`\uFEFF${lines.map((line) => JSON.stringify(line)).join('\n')}`);
    expect(rows).toEqual([
      { kind: 'chat', messages: messages.map(({ role, content }) => ({ role, content })) },
      { kind: 'instruction', instruction: 'a', input: 'b', output: 'c' },
      { kind: 'instruction', instruction: 'a', input: '', output: 'c' },
      { kind: 'instruction', instruction: 'a', input: '', output: 'c' },
      { kind: 'plain', text: 'a' },
    ]);
  });

  it('takes fields from other keys when told', () => {
    const columns = { prompt: 'question', completion: 'answer' };
    const read = (line: object) => parseDataLines(JSON.stringify(line), 'mine.jsonl', columns);
    const row = { kind: 'text', prompt: 'a', completion: 'b' };
    expect(read({ question: 'a', answer: 'b', prompt: 'not this', text: 'nor this' })).toEqual([row]);
    expect(() => read({ question: 'a' })).toThrow(/^Line 1 of mine\.jsonl: has no "answer" to take as completion/);
    expect(() => parseDataLines('7', 'mine.jsonl', columns)).toThrow(/is not a JSON object/);
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
    ['the beginning of a list', '[', /begins a list; write its rows one a line/],
    ['nothing it knows', '{"question": "a"}', /has none of the fields input_ids, messages, prompt/],
    ['no message', '{"messages": []}', /messages: must not be empty/],
    ['messages that are no list', '{"messages": "a"}', /messages: /],
    [
      'an unknown role',
      '{"messages": [{"role": "bot", "content": "a"}]}',
      /messages\.0\.role: must be one of system, /,
    ],
    ['content in parts', '{"messages": [{"role": "user", "content": [{}]}]}', /messages\.0\.content: must be a string/],
    [
      'a call of a tool',
      '{"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}',
      /messages\.0\.tool_calls: calls of tools are not supported/,
    ],
    [
      'a question without an answer',
      '{"messages": [{"role": "user", "content": "a"}]}',
      /messages: the last .* assistant/,
    ],
    ['an empty answer', '{"messages": [{"role": "assistant", "content": ""}]}', /messages: .* must not be empty/],
    ['no output', '{"instruction": "a"}', /output/],
    ['an empty output', '{"instruction": "a", "output": ""}', /output: must not be empty/],
    ['input that is no text', '{"instruction": "a", "input": 1, "output": "b"}', /input/],
    ['empty text', '{"text": ""}', /text: must not be empty/],
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
