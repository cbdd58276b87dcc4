import { describe, expect, it } from 'vitest';
import { evaluationBatches, makeBatch, oneExamplePerRow, sequenceFor, trainingBatches } from './batches.ts';
import type { Example } from './examples.ts';

const example = (...inputIds: number[]): Example => ({
  inputIds,
  labels: inputIds.map((id, i) => (i === 0 ? -100 : id)),
  targets: inputIds.length - 1,
});
const predicted = ({ targets }: { targets: Int32Array }) => [...targets].filter((id) => id >= 0);
const badSettings = expect.objectContaining({ name: 'TrainerError', code: 'bad-settings' });

describe('batches', () => {
  it('pads on the right and lets a position predict the label after it', () => {
    const batch = makeBatch([[example(1, 7, 8)], [example(1, 9)]], 3, 4);
    expect([...batch.ids]).toEqual([1, 7, 8, 0, 1, 9, 0, 0, 0, 0, 0, 0]);
    expect([...batch.targets]).toEqual([7, 8, -100, -100, 9, -100, -100, -100, -100, -100, -100, -100]);
    expect([...batch.positions]).toEqual([0, 1, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    expect(batch).toMatchObject({ targetTokens: 3, tokens: 5, examples: 2 });
  });

  it('lays examples of a row end to end, each seeing itself alone', () => {
    // The second example's first label is set, as in rows of plain text; nothing may predict it.
    const second: Example = { inputIds: [5, 6, 7], labels: [5, 6, 7], targets: 2 };
    const batch = makeBatch([[example(1, 2), second]], 2, 6);
    expect([...batch.ids]).toEqual([1, 2, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0]);
    expect([...batch.targets]).toEqual([2, -100, 6, 7, ...Array(8).fill(-100)]);
    expect([...batch.positions]).toEqual([0, 1, 0, 1, 2, ...Array(7).fill(0)]);
    const pairs = (spans: Uint32Array) => Array.from({ length: 12 }, (_, n) => [spans[2 * n], spans[2 * n + 1]]);
    const padding = [5, 6, 7, 8, 9, 10, 11].map((n) => [n, n]);
    expect(pairs(batch.querySpans)).toEqual([[0, 0], [0, 1], [2, 2], [2, 3], [2, 4], ...padding]);
    expect(pairs(batch.keySpans)).toEqual([[0, 1], [1, 1], [2, 4], [3, 4], [4, 4], ...padding]);
    expect(batch).toMatchObject({ targetTokens: 3, tokens: 5, examples: 2 });
  });

  it('refuses rows that do not fit', () => {
    expect(() => makeBatch([[example(1, 2), example(3, 4)]], 1, 3)).toThrow(badSettings);
    expect(() => makeBatch([[example(1)], [example(2)]], 1, 3)).toThrow(badSettings);
    expect(makeBatch([[example(1, 2), example(3)]], 1, 3).tokens).toBe(3);
  });

  it('evaluates every row once, in order', () => {
    const rows = oneExamplePerRow([example(1, 2), example(1, 3), example(1, 4)]);
    expect([...evaluationBatches(rows, 2, 2)].flatMap(predicted)).toEqual([2, 3, 4]);
  });

  it('shuffles every pass anew, by the seed alone, and skips nobody', () => {
    const rows = oneExamplePerRow(Array.from({ length: 10 }, (_, i) => example(1, 10 + i)));
    const draw = (seed: string, count: number, microBatch = 4): number[] => {
      const steps = trainingBatches(rows, { batch: 4, microBatch, sequence: 2 }, seed);
      return Array.from({ length: count }, () => steps.next().value.flatMap(predicted)).flat();
    };
    const twoPasses = draw('a', 5);
    expect(draw('a', 5)).toEqual(twoPasses);
    expect(draw('b', 5)).not.toEqual(twoPasses);
    const [first, second] = [twoPasses.slice(0, 10), twoPasses.slice(10)];
    const everyone = rows.map(([row]) => row?.inputIds[1]);
    expect([...first].sort()).toEqual(everyone);
    expect([...second].sort()).toEqual(everyone);
    expect(first).not.toEqual(second);
    // Micro-batches cut a step in pieces; they do not change what is in it.
    expect(draw('a', 5, 2)).toEqual(twoPasses);
    expect(draw('a', 5, 1)).toEqual(twoPasses);
  });

  it('cuts a step into micro-batches of one shape', () => {
    const rows = oneExamplePerRow([example(1, 2), example(1, 3), example(1, 4)]);
    const { value } = trainingBatches(rows, { batch: 6, microBatch: 2, sequence: 2 }, 's').next();
    expect(value.map(({ ids, examples }) => [ids.length, examples])).toEqual([
      [4, 2],
      [4, 2],
      [4, 2],
    ]);
  });

  it('fills a batch larger than the data by going round', () => {
    const rows = oneExamplePerRow([example(1, 2), example(1, 3)]);
    const { value } = trainingBatches(rows, { batch: 5, microBatch: 5, sequence: 2 }, 's').next();
    expect(value[0]?.examples).toBe(5);
  });

  it('refuses micro-batches that do not divide the batch, and no rows', () => {
    const next = (rows: Example[][], batch: number, microBatch: number) =>
      trainingBatches(rows, { batch, microBatch, sequence: 2 }, 's').next();
    expect(() => next([[example(1, 2)]], 4, 3)).toThrow(badSettings);
    expect(() => next([[example(1, 2)]], 4, 0)).toThrow(badSettings);
    expect(() => next([], 1, 1)).toThrow(badSettings);
  });

  it('chooses a sequence in steps of 8, up to the limit, for examples and for packed rows', () => {
    const long = (length: number) => example(...Array.from({ length }, () => 1));
    expect(sequenceFor([long(3), long(8)], 512)).toBe(8);
    expect(sequenceFor([long(3), long(9)], 512)).toBe(16);
    expect(sequenceFor([long(60)], 60)).toBe(60);
    expect(sequenceFor([[long(5), long(8), long(4)], [long(3)]], 512)).toBe(24);
  });
});
