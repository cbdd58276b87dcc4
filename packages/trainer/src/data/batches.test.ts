import { describe, expect, it } from 'vitest';
import { evaluationBatches, makeBatch, sequenceFor, trainingBatches } from './batches.ts';
import type { Example } from './examples.ts';

const example = (...inputIds: number[]): Example => ({
  inputIds,
  labels: inputIds.map((id, i) => (i === 0 ? -100 : id)),
  targets: inputIds.length - 1,
});

describe('batches', () => {
  it('pads on the right and lets a position predict the label after it', () => {
    const batch = makeBatch([example(1, 7, 8), example(1, 9)], 3, 4);
    expect([...batch.ids]).toEqual([1, 7, 8, 0, 1, 9, 0, 0, 0, 0, 0, 0]);
    expect([...batch.targets]).toEqual([7, 8, -100, -100, 9, -100, -100, -100, -100, -100, -100, -100]);
    expect(batch).toMatchObject({ targetTokens: 3, tokens: 5, examples: 2 });
  });

  it('evaluates every example once, in order', () => {
    const all = [example(1, 2), example(1, 3), example(1, 4)];
    const seen = [...evaluationBatches(all, 2, 2)].flatMap(({ targets }) => [...targets].filter((id) => id >= 0));
    expect(seen).toEqual([2, 3, 4]);
  });

  it('shuffles every pass anew, by the seed alone, and skips nobody', () => {
    const all = Array.from({ length: 10 }, (_, i) => example(1, 10 + i));
    const draw = (seed: string, count: number): number[] => {
      const batches = trainingBatches(all, 4, 2, seed);
      return Array.from({ length: count }, () => [...batches.next().value.targets].filter((id) => id >= 0)).flat();
    };
    const twoPasses = draw('a', 5);
    expect(draw('a', 5)).toEqual(twoPasses);
    expect(draw('b', 5)).not.toEqual(twoPasses);
    const [first, second] = [twoPasses.slice(0, 10), twoPasses.slice(10)];
    const everyone = all.map(({ inputIds }) => inputIds[1]);
    expect([...first].sort()).toEqual(everyone);
    expect([...second].sort()).toEqual(everyone);
    expect(first).not.toEqual(second);
  });

  it('fills a batch larger than the data by going round', () => {
    const { value } = trainingBatches([example(1, 2), example(1, 3)], 5, 2, 's').next();
    expect(value.examples).toBe(5);
  });

  it('chooses a sequence in steps of 8, up to the limit', () => {
    const long = (length: number) => example(...Array.from({ length }, () => 1));
    expect(sequenceFor([long(3), long(8)], 512)).toBe(8);
    expect(sequenceFor([long(3), long(9)], 512)).toBe(16);
    expect(sequenceFor([long(60)], 60)).toBe(60);
  });
});
