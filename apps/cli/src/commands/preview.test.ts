// `weft preview`: which text is labelled, shown without colour; counts; rows packed.
import { writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { asset, commandLine, task } from '../testing.ts';
import { registerPreview } from './preview.ts';

const { file, weft, document } = commandLine(registerPreview);
const model = ['--model', asset('stories260K')];

async function write(name: string, content: string): Promise<string> {
  await writeFile(file(name), content);
  return file(name);
}

describe('weft preview', () => {
  it('puts the labelled text, and nothing of the prompt, between brackets', async () => {
    const data = await write('one.jsonl', '{"prompt": "Where is the bed?", "completion": "bedroom"}\n');
    const { exitCode, out, err } = await weft('preview', ...model, '--data', data);
    expect([exitCode, err]).toEqual([0, '']);
    expect(out).toMatch(/Where is the bed\?.*⟦.*bedroom.*⟧/);
    expect(out).toMatch(/1 of 1 examples shown/);
    const json = await document(['preview', ...model, '--data', data]);
    const [example] = json.examples;
    expect(example.spans.map(({ labelled }: { labelled: boolean }) => labelled)).toEqual([false, true]);
    const labelled = example.tokens.filter((token: { labelled: boolean }) => token.labelled);
    expect(labelled.length).toBe(example.targets);
    expect(json).toMatchObject({ total: 1, truncated: 0, unlabelled: 0, sequence: 512 });
  });

  it('counts what is cut, and shows as many as asked for', async () => {
    const long = JSON.stringify({ prompt: 'word '.repeat(200), completion: 'end' });
    const data = await write('long.jsonl', `${long}\n{"prompt": "a", "completion": "b"}\n${long}\n`);
    const json = await document(['preview', ...model, '--data', data, '--seq', '32', '--rows', '2']);
    expect(json).toMatchObject({ total: 3, truncated: 2, longest: 32, sequence: 32 });
    expect(json.examples).toHaveLength(2);
  });

  it('reads tables and instructions as train does', async () => {
    const data = await write('qa.csv', 'q,a\nsink,kitchen\n');
    const mapped = await weft('preview', ...model, '--data', data, '--columns', 'prompt=q,completion=a');
    expect(mapped.out).toMatch(/sink.*⟦.*kitchen.*⟧/);
    const tasks = await write('tasks.jsonl', '{"instruction": "Name the room", "input": "sink", "output": "kitchen"}');
    const template = ['--instruction-template', 'TASK {instruction} ON {input}:'];
    const told = await weft('preview', ...model, '--data', tasks, ...template);
    expect(told.out).toMatch(/TASK Name the room ON sink:.*⟦.*kitchen.*⟧/);
  });

  it('shows how rows are packed', async () => {
    const args = ['preview', ...model, '--data', task('rooms', 'test'), '--seq', '128', '--pack'];
    const { packing, total, tokens } = await document(args);
    expect(packing.lengths.flat()).toHaveLength(total);
    expect(packing.rows).toBe(packing.lengths.length);
    expect(packing.rows).toBeLessThan(total / 2);
    for (const lengths of packing.lengths)
      expect(lengths.reduce((sum: number, length: number) => sum + length, 0)).toBeLessThanOrEqual(128);
    expect(packing.filled).toBeCloseTo(tokens / (packing.rows * packing.sequence), 12);
    const { out } = await weft(...args);
    expect(out).toMatch(/Packed into \d+ rows/);
  });

  it('refuses rows beyond the context', async () => {
    const { exitCode, err } = await weft('preview', ...model, '--data', task('rooms', 'test'), '--seq', '999');
    expect(exitCode).toBe(2);
    expect(err).toMatch(/context of 512/);
  });
});
