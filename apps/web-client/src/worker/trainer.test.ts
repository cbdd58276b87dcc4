import { readFileSync } from 'node:fs';
import type { OwnLimits, RunView } from '@weft/protocol';
import type { Trainer } from '@weft/volunteer';
import { describe, expect, it } from 'vitest';
import { RowCounter } from './trainer.ts';

const folder = new URL('../../../../assets/models/stories260K/', import.meta.url);
const files = new Map(
  ['config.json', 'tokenizer.json', 'tokenizer_config.json'].map((name) => [
    name,
    new Uint8Array(readFileSync(new URL(name, folder))),
  ]),
);
const limits: OwnLimits = { maxMemoryBytes: null, maxRank: null, maxUploadBytes: null };

/** A counter whose trainer was asked about a run of this sequence length. */
async function counterFor(sequenceLength: number): Promise<RowCounter> {
  const counter = new RowCounter();
  const asked: unknown[] = [];
  const trainer: Pick<Trainer, 'proposeRank'> = {
    proposeRank: async (...question) => {
      asked.push(question);
      return {
        rank: 1,
        verdicts: [{ rank: 1, fits: true, memoryBytes: 1, uploadBytes: 1, reason: '' }],
        ownLimits: limits,
        stepSeconds: null,
      };
    },
  };
  const run = { settings: { sequenceLength } } as RunView;
  await counter.watch(trainer as Trainer).proposeRank(run, files, limits);
  expect(asked).toEqual([[run, files, limits]]);
  return counter;
}

const row = (prompt: string, completion: string) => JSON.stringify({ prompt, completion });

describe('counting rows before training', () => {
  it('finds the rows the run’s sequence will cut, with the model’s own tokenizer', async () => {
    const counter = await counterFor(16);
    const rows = [row('Once', ' upon a time'), row('Once '.repeat(40), ' upon a time'), row('One', ' day')].join('\n');
    expect(counter.count(rows)).toEqual({ cut: 1, unlabelled: 0 });
    expect((await counterFor(400)).count(rows)).toEqual({ cut: 0, unlabelled: 0 });
  });

  it('names the line at fault', async () => {
    const counter = await counterFor(16);
    expect(() => counter.count(`${row('a', 'b')}\n{"prompt": "a"}`)).toThrow(/Line 2/);
  });

  it('knows nothing before the model is here', () => {
    expect(new RowCounter().count(row('a', 'b'))).toBeNull();
  });
});
