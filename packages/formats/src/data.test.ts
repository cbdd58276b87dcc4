import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseData } from './data.ts';

const failure = (work: () => unknown, code: string, message: RegExp) => {
  expect(work).toThrow(expect.objectContaining({ name: 'FormatError', code }));
  expect(work).toThrow(message);
};
const text = (prompt: string, completion: string) => ({ kind: 'text', prompt, completion });

describe('parseData', () => {
  it('goes by the ending of the file, unless told', () => {
    const line = '{"prompt": "a", "completion": "b"}';
    for (const file of ['x.jsonl', 'x.json', 'x']) expect(parseData(line, file)).toEqual([text('a', 'b')]);
    for (const file of ['x.csv', 'x.TSV']) expect(parseData('prompt,completion\na,b', file)).toEqual([text('a', 'b')]);
    for (const file of ['x.txt', 'x.md']) expect(parseData(line, file)).toEqual([{ kind: 'plain', text: line }]);
    expect(parseData(line, 'x.txt', { format: 'jsonl' })).toEqual([text('a', 'b')]);
    const columns = { prompt: 'q', completion: 'a' };
    expect(parseData('{"q": "a", "a": "b"}', 'x.jsonl', { columns })).toEqual([text('a', 'b')]);
  });

  it('takes plain text as it is, as one row', () => {
    expect(parseData('\uFEFFone\r\n\n two ', 'x.txt')).toEqual([{ kind: 'plain', text: 'one\r\n\n two ' }]);
    failure(() => parseData(' \n', 'x.txt'), 'data-empty', /no text in x\.txt/);
    failure(() => parseData('a', 'x.txt', { columns: { text: 'a' } }), 'data-columns', /has no columns/);
  });
});

describe('a table', () => {
  it.each([',', '\t', ';', '|'])('is read with the separator %j', (sign) => {
    const lines = [
      ['id', 'prompt', 'completion'],
      ['1', '"a,b\t;|"', ' c '],
      ['2', '', '"say ""d"""'],
    ];
    const table = lines.map((line) => line.join(sign)).join('\n');
    expect(parseData(table, 'x.csv')).toEqual([text('a,b\t;|', ' c '), text('', 'say "d"')]);
  });

  it('gives back any text that was quoted', () => {
    const quote = (value: string) => `"${value.replaceAll('"', '""')}"`;
    const value = fc.string({ unit: fc.constantFrom('a', ',', '"', '\n', '\r', ';', '\t', ' ', 'é', '|') });
    const row = fc.record({ prompt: value, completion: value.filter((completion) => completion !== '') });
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 8 }), fc.constantFrom('\n', '\r\n'), (rows, end) => {
        const lines = rows.map(({ prompt, completion }) => `${quote(completion)},7,${quote(prompt)}`);
        const table = `completion,n,prompt${end}${lines.join(end)}${end}`;
        expect(parseData(table, 'x.csv')).toEqual(rows.map(({ prompt, completion }) => text(prompt, completion)));
      }),
      { numRuns: 300 },
    );
  });

  it('knows instructions with and without input, and plain text', () => {
    const answer = { kind: 'instruction', instruction: 'a', output: 'b' };
    expect(parseData('instruction,output\na,b', 'x.csv')).toEqual([{ ...answer, input: '' }]);
    expect(parseData('output,input,instruction,text\nb,c,a,z', 'x.csv')).toEqual([{ ...answer, input: 'c' }]);
    expect(parseData('\uFEFFtext\n"a, b"\n\nc\n', 'x.csv')).toEqual([
      { kind: 'plain', text: 'a, b' },
      { kind: 'plain', text: 'c' },
    ]);
    // A lone prompt makes no row, but the text beside it does.
    expect(parseData('prompt,text\na,b', 'x.csv')).toEqual([{ kind: 'plain', text: 'b' }]);
  });

  it('takes columns by the mapping it is given', () => {
    const table = 'Question;Answer;prompt\nwhy?;so;z\n';
    const columns = { prompt: 'Question', completion: 'Answer' };
    expect(parseData(table, 'x.csv', { columns })).toEqual([text('why?', 'so')]);
    expect(parseData(table, 'x.csv', { columns: { text: 'Answer' } })).toEqual([{ kind: 'plain', text: 'so' }]);
  });

  const wrong: [string, string, Record<string, string> | undefined, string, RegExp][] = [
    [
      'a column is missing',
      'prompt,answer\na,b',
      undefined,
      'data-columns',
      /x\.csv has no column "completion"; its first line names "prompt", "answer"/,
    ],
    ['it has no column we know', 'a,b\n1,2', undefined, 'data-columns', /no column "prompt", "completion"/],
    [
      'the mapped columns are missing',
      'a,b\n1,2',
      { prompt: 'a', completion: 'c' },
      'data-columns',
      /no column "c"; .* "a", "b"/,
    ],
    [
      'the mapping names no field',
      'a,b\n1,2',
      { question: 'a' },
      'data-columns',
      /no field "question"; map columns to prompt/,
    ],
    [
      'the mapping makes no row',
      'a,b\n1,2',
      { prompt: 'a' },
      'data-columns',
      /prompt makes no row; map prompt and completion, or/,
    ],
    ['the mapping is empty', 'a,b\n1,2', {}, 'data-columns', /No field makes no row/],
    ['a column is there twice', 'text,text\n1,2', undefined, 'data-columns', /two columns "text"/],
    [
      'a row is short',
      'prompt,completion\na,b\nc\n',
      undefined,
      'data-line',
      /^Row 2 of x\.csv: has 1 values where the header names 2/,
    ],
    ['a row is long', 'prompt,completion\na,b,c\n', undefined, 'data-line', /^Row 1 of x\.csv: has 3 values/],
    [
      'a completion is empty',
      'prompt,completion\na,b\n\nc,\n',
      undefined,
      'data-line',
      /^Row 3 of x\.csv: completion: must not be empty/,
    ],
    [
      'a quote is open',
      'prompt,completion\na,b\nc,"d\n',
      undefined,
      'data-line',
      /^Row 2 of x\.csv: Quoted field unterminated/,
    ],
    ['a quote ends early', 'prompt,completion\na,"b"c\n', undefined, 'data-line', /^Row 1 of x\.csv: .*quote/],
    ['there is only a header', 'prompt,completion\n\n', undefined, 'data-empty', /no row in x\.csv/],
    ['there is nothing', ' \n', undefined, 'data-empty', /no row in x\.csv/],
  ];
  it.each(wrong)('is refused when %s', (_, table, columns, code, message) => {
    failure(() => parseData(table, 'x.csv', columns ? { columns } : {}), code, message);
  });
});
