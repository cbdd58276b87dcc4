// `weft eval`'s answers: chosen by likelihood, as the losses of the candidates say; written, as `weft generate` writes; and
// what one scores who knows nothing.
import { readFile, writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { asset, commandLine, task } from '../testing.ts';
import { registerEval } from './eval.ts';
import { registerGenerate } from './generate.ts';

const { file, weft, document, failure } = commandLine(registerEval, registerGenerate);
const model = ['--model', asset('stories260K')];

/** The first rows of a task, as objects. */
async function rowsOf(name: string, split: 'train' | 'test', count: number) {
  const lines = (await readFile(task(name, split), 'utf8')).split('\n').slice(0, count);
  return lines.map((line): { prompt: string; completion: string } => JSON.parse(line));
}

async function writeRows(name: string, rows: readonly object[]): Promise<string> {
  await writeFile(file(name), rows.map((row) => JSON.stringify(row)).join('\n'));
  return file(name);
}

describe('weft eval --choices', () => {
  it('takes the candidate with the least loss, in all and per token', async () => {
    const rows = await rowsOf('country-continent', 'test', 3);
    const candidates = ['Africa', 'Asia', 'South America'];
    const labels = file('labels.txt');
    await writeFile(labels, `${candidates.join('\n')}\n`);
    const data = await writeRows('three.jsonl', rows);
    const { choices } = await document(['eval', ...model, '--data', data, '--choices', '--labels', labels]);
    let [right, rightPerToken] = [0, 0];
    for (const [i, row] of rows.entries()) {
      const losses: { completion: string; loss: number; sum: number }[] = [];
      for (const completion of candidates) {
        const one = await writeRows('one.jsonl', [{ ...row, completion }]);
        const { loss, tokens } = await document(['eval', ...model, '--data', one]);
        losses.push({ completion, loss, sum: loss * tokens });
      }
      const best = (key: 'loss' | 'sum') => losses.reduce((a, b) => (b[key] < a[key] ? b : a)).completion;
      expect(choices.answers[i]).toEqual({ chosen: best('sum'), reference: row.completion });
      right += Number(best('sum') === row.completion);
      rightPerToken += Number(best('loss') === row.completion);
    }
    expect(choices.accuracy).toBeCloseTo((100 * right) / 3, 10);
    expect(choices.lengthNormalisedAccuracy).toBeCloseTo((100 * rightPerToken) / 3, 10);
    expect(choices.unknownAnswers).toBe(rows.filter(({ completion }) => !candidates.includes(completion)).length);
    expect(choices.majorityAccuracy).toBeNull();
  });

  it('takes candidates and the most frequent answer from --train', async () => {
    const args = [
      '--data',
      task('has-part', 'test'),
      '--limit',
      '8',
      '--choices',
      '--train',
      task('has-part', 'train'),
    ];
    const result = await document(['eval', ...model, ...args]);
    expect(result.rows).toBe(8);
    expect(result.choices.candidates).toEqual(['no', 'yes']);
    const train = await rowsOf('has-part', 'train', 180);
    const yes = train.filter(({ completion }) => completion === 'yes').length;
    const majority = yes > 90 ? 'yes' : 'no';
    const right = (await rowsOf('has-part', 'test', 8)).filter(({ completion }) => completion === majority).length;
    expect(result.choices.majorityAccuracy).toBe((100 * right) / 8);
    const { out } = await weft('eval', ...model, ...args);
    expect(out).toMatch(/choosing among 2 answers/);
    expect(out).toMatch(/most frequent answer of --train/);
  });

  it('asks for labels where answers are free text', async () => {
    const rows = Array.from({ length: 40 }, (_, i) => ({ prompt: 'count', completion: `number ${i}` }));
    const data = await writeRows('free.jsonl', rows);
    const { exitCode, message } = await failure(['eval', ...model, '--data', data, '--choices']);
    expect(exitCode).toBe(2);
    expect(message).toMatch(/40 different answers.*--labels FILE/);
  });

  it('names the row that is no question', async () => {
    const data = await writeRows('plain.jsonl', [{ prompt: 'a', completion: 'b' }, { text: 'Once upon a time' }]);
    expect(await failure(['eval', ...model, '--data', data, '--choices'])).toMatchObject({
      exitCode: 1,
      code: 'no-questions',
      message: expect.stringMatching(/^Row 2 /),
    });
  });
});

describe('weft eval --generate', () => {
  it('scores what generate writes, without the prompt, beside the two answers that need no model', async () => {
    const prompts = ['Once upon a time, there was a', 'Lily and Tom went to the'];
    const written = [];
    for (const prompt of prompts)
      written.push((await document(['generate', ...model, '--prompt', prompt, '--max-tokens', '5'])).text);
    const [first = '', second = ''] = written;
    // The first answer is what is written, the second is the prompt itself.
    const data = await writeRows('asked.jsonl', [
      { prompt: prompts[0], completion: first.trim() },
      { prompt: prompts[1], completion: prompts[1] },
    ]);
    const train = await writeRows('answers.jsonl', [
      { prompt: 'a', completion: 'yes' },
      { prompt: 'b', completion: prompts[1] },
      { prompt: 'c', completion: prompts[1] },
    ]);
    const args = ['eval', ...model, '--data', data, '--generate', '--max-tokens', '5', '--train', train];
    const { generated } = await document(args);
    expect(generated.answers).toEqual([
      { generated: first, reference: first.trim() },
      { generated: second, reference: prompts[1] },
    ]);
    expect(generated.exactMatch).toBe(50);
    expect(generated.rougeL).toBeGreaterThanOrEqual(50);
    // Whoever repeats the prompt, or gives the most frequent answer, has the second right.
    expect(generated.copyInput.exactMatch).toBe(50);
    expect(generated.majority.exactMatch).toBe(50);
    const { out } = await weft(...args);
    expect(out).toMatch(/2 generated answers.*exact match/);
  });
});

describe('weft eval', () => {
  it('keeps weights smaller at nearly the same loss', async () => {
    const args = ['eval', ...model, '--data', task('rooms', 'test')];
    const { loss } = await document(args);
    for (const [weights, within] of [
      ['f16', 1e-3],
      ['q8', 1e-2],
    ] as const) {
      const kept = await document([...args, '--weights', weights]);
      expect(Math.abs(kept.loss - loss), weights).toBeLessThan(within);
      expect(kept.loss, weights).not.toBe(loss);
    }
  });

  it.each<[string, string[], RegExp]>([
    ['labels without choices', ['--labels', 'x'], /give --choices/],
    ['training rows for nothing', ['--train', 'x'], /--choices and --generate/],
  ])('%s is exit code 2', async (_name, args, message) => {
    const { exitCode, err } = await weft('eval', ...model, '--data', 'x', ...args);
    expect(exitCode).toBe(2);
    expect(err).toMatch(message);
  });
});
