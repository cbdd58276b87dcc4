import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { candidatesOf as candidateArrays, greedy, sampler } from './sampling.ts';

const failure = (code: string) => expect.objectContaining({ name: 'TrainerError', code });
/** Logits whose softmax is exactly these probabilities, to float32. */
const logitsOf = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);
/** Candidates one by one. */
const candidatesOf = (...args: Parameters<typeof candidateArrays>) => {
  const { ids, probabilities } = candidateArrays(...args);
  expect(probabilities).toHaveLength(ids.length);
  return Array.from(ids, (id, i) => ({ id, probability: probabilities[i] ?? Number.NaN }));
};
const round = (candidates: { id: number; probability: number }[]) =>
  candidates.map(({ id, probability }) => [id, Number(probability.toFixed(6))]);

describe('greedy', () => {
  it('takes the lowest id of the likeliest tokens', () => {
    expect(greedy(Float32Array.of(-1, 3, 2, 3))).toBe(1);
    expect(greedy(Float32Array.of(Number.NEGATIVE_INFINITY, -5))).toBe(1);
    const zero = sampler({ temperature: 0, topK: 3, topP: 0.1, seed: 's' });
    expect([zero(Float32Array.of(0, 1, 1)), zero(Float32Array.of(4, 1, 1))]).toEqual([1, 0]);
  });
});

describe('candidates', () => {
  it('are the softmax of logits / temperature', () => {
    const found = candidatesOf(Float32Array.of(1, 2, 4), { temperature: 2 });
    const weights = [0.5, 1, 2].map(Math.exp);
    const sum = weights.reduce((a, b) => a + b);
    for (const [i, { id, probability }] of found.entries()) {
      expect(id).toBe(i);
      expect(probability).toBeCloseTo((weights[i] ?? 0) / sum, 12);
    }
  });

  it('do not overflow, however large the logits', () => {
    expect(round(candidatesOf(Float32Array.of(3e38, 3e38, -3e38), { temperature: 1e-3 }))).toEqual([
      [0, 0.5],
      [1, 0.5],
      [2, 0],
    ]);
  });

  it('are the k likeliest, the lower ids at a tie', () => {
    const logits = Float32Array.of(2, 5, 2, 1, 2);
    expect(candidatesOf(logits, { temperature: 1, topK: 1 })).toEqual([{ id: 1, probability: 1 }]);
    expect(candidatesOf(logits, { temperature: 1, topK: 3 }).map(({ id }) => id)).toEqual([0, 1, 2]);
    expect(candidatesOf(logits, { temperature: 1, topK: 99 })).toHaveLength(5);
    // Fewer possible tokens than k: the forbidden ones make up the number, and cannot come.
    const forbidden = Float32Array.of(Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY);
    expect(candidatesOf(forbidden, { temperature: 1, topK: 2 })).toEqual([
      { id: 0, probability: 0 },
      { id: 1, probability: 1 },
    ]);
  });

  it('are the fewest that reach p', () => {
    const logits = logitsOf(0.1, 0.5, 0.15, 0.25);
    const ids = (topP: number) => candidatesOf(logits, { temperature: 1, topP }).map(({ id }) => id);
    expect(ids(0.01)).toEqual([1]);
    expect(ids(0.49)).toEqual([1]);
    expect(ids(0.51)).toEqual([1, 3]);
    expect(ids(0.76)).toEqual([1, 2, 3]);
    expect(ids(0.95)).toEqual([0, 1, 2, 3]);
    expect(candidatesOf(new Float32Array(4), { temperature: 1, topP: 0.01 })).toEqual([{ id: 0, probability: 1 }]);
    expect(round(candidatesOf(logits, { temperature: 1, topP: 0.7 }))).toEqual([
      [1, 0.666667],
      [3, 0.333333],
    ]);
  });

  it('take the nucleus of what top-k leaves, renormalised', () => {
    // Of the whole, 0.4 + 0.3 reach 0.6 only together; of the top two, 0.4 / 0.7 = 0.571 does not reach 0.6 but 0.55.
    const logits = logitsOf(0.4, 0.3, 0.2, 0.1);
    expect(candidatesOf(logits, { temperature: 1, topP: 0.55 })).toHaveLength(2);
    expect(candidatesOf(logits, { temperature: 1, topK: 2, topP: 0.55 })).toHaveLength(1);
    expect(candidatesOf(logits, { temperature: 1, topK: 2, topP: 0.6 })).toHaveLength(2);
  });

  it('agree with sorting the whole vocabulary, whatever the logits', () => {
    // Multiples of 1/16: many tie, and no two differ by so little that their probabilities are equal.
    const logits = fc.array(
      fc.integer({ min: -128, max: 128 }).map((i) => i / 16),
      { minLength: 1, maxLength: 60 },
    );
    const settings = fc.record({
      temperature: fc.double({ min: 0.2, max: 3, noNaN: true }),
      topK: fc.integer({ min: 1, max: 70 }),
      topP: fc.double({ min: 0.01, max: 0.99, noNaN: true }),
    });
    fc.assert(
      fc.property(logits, settings, (values, { temperature, topK, topP }) => {
        const sorted = [...Float32Array.from(values).entries()].sort(([i, a], [j, b]) => b - a || i - j).slice(0, topK);
        const weights = sorted.map(([, logit]) => Math.exp((logit - (sorted[0]?.[1] ?? 0)) / temperature));
        const total = weights.reduce((a, b) => a + b);
        const sums = weights.map((_, i) => weights.slice(0, i + 1).reduce((a, b) => a + b) / total);
        // Where a sum meets p to rounding either side is right.
        fc.pre(sums.every((sum) => Math.abs(sum - topP) > 1e-9));
        const expected = sorted.slice(0, sums.findIndex((sum) => sum > topP) + 1).map(([id]) => id);
        const found = candidatesOf(Float32Array.from(values), { temperature, topK, topP });
        expect(found.map(({ id }) => id)).toEqual(expected.sort((a, b) => a - b));
        expect(found.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 12);
      }),
    );
  });

  it('handle a vocabulary of 151,936', () => {
    const logits = Float32Array.from({ length: 151_936 }, (_, id) => (id * 7919) % 1000);
    const found = candidatesOf(logits, { temperature: 100, topK: 50, topP: 0.5 });
    expect(found.length).toBeGreaterThan(10);
    expect(found.length).toBeLessThan(50);
  });
});

describe('sampler', () => {
  const counts = (logits: Float32Array, options: { temperature: number; topK?: number; topP?: number }, n: number) => {
    const next = sampler({ ...options, seed: 'counts' });
    const seen = new Map<number, number>();
    for (let i = 0; i < n; i += 1) {
      const id = next(logits);
      seen.set(id, (seen.get(id) ?? 0) + 1);
    }
    return seen;
  };
  /** χ² of what was drawn against exact probabilities. */
  const chiSquare = (seen: ReadonlyMap<number, number>, probabilities: readonly number[], n: number) => {
    const expected = probabilities.map((p) => p * n);
    return expected.reduce((sum, e, id) => sum + ((seen.get(id) ?? 0) - e) ** 2 / e, 0);
  };
  const DRAWS = 20_000;

  it('draws with the probabilities of the softmax', () => {
    const probabilities = [0.05, 0.4, 0.1, 0.2, 0.25];
    // 4 degrees of freedom: over 23.5 in 1 of 10,000 seeds. The seed is fixed.
    expect(chiSquare(counts(logitsOf(...probabilities), { temperature: 1 }, DRAWS), probabilities, DRAWS)).toBeLessThan(
      23.5,
    );
    // At temperature ½ probabilities are squared; the test would notice if they were not.
    const squares = probabilities.map((p) => p * p);
    const sharp = squares.map((p) => p / squares.reduce((a, b) => a + b));
    const seen = counts(logitsOf(...probabilities), { temperature: 0.5 }, DRAWS);
    expect(chiSquare(seen, sharp, DRAWS)).toBeLessThan(23.5);
    expect(chiSquare(seen, probabilities, DRAWS)).toBeGreaterThan(1000);
  });

  it('draws from the top-k and the nucleus alone', () => {
    const logits = logitsOf(0.05, 0.4, 0.1, 0.2, 0.25);
    const top = counts(logits, { temperature: 1, topK: 2 }, DRAWS);
    expect([...top.keys()].sort()).toEqual([1, 4]);
    // Standard deviation of the share 0.4/0.65 in 20,000 draws: 0.0034.
    expect(Math.abs((top.get(1) ?? 0) / DRAWS - 0.4 / 0.65)).toBeLessThan(4 * 0.0034);
    const held = counts(logits, { temperature: 1, topP: 0.8 }, DRAWS);
    expect([...held.keys()].sort()).toEqual([1, 3, 4]);
  });

  it('repeats itself by the seed, and differs by it', () => {
    const logits = new Float32Array(50);
    const draw = (seed: string) => {
      const next = sampler({ temperature: 1, seed });
      return Array.from({ length: 20 }, () => next(logits));
    };
    expect(draw('a')).toEqual(draw('a'));
    expect(draw('a')).not.toEqual(draw('b'));
  });

  it('never draws a token forbidden by −∞', () => {
    const logits = Float32Array.of(Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY, 0);
    expect([...counts(logits, { temperature: 5 }, 500).keys()].sort()).toEqual([1, 3]);
  });

  it('refuses logits that are not numbers, by name', () => {
    for (const temperature of [0, 1]) {
      const next = sampler({ temperature, topK: 2, seed: 's' });
      expect(() => next(Float32Array.of(0, Number.NaN))).toThrow(failure('non-finite'));
      expect(() => next(Float32Array.of(0, Number.NaN))).toThrow(/token 1 is NaN/);
      expect(() => next(Float32Array.of(Number.POSITIVE_INFINITY))).toThrow(failure('non-finite'));
      expect(() => next(Float32Array.of(Number.NEGATIVE_INFINITY))).toThrow(failure('non-finite'));
      expect(() => next(new Float32Array(0))).toThrow(failure('non-finite'));
    }
  });

  it.each([
    { temperature: -1 },
    { temperature: Number.NaN },
    { temperature: Number.POSITIVE_INFINITY },
    { temperature: 1, topK: 0 },
    { temperature: 1, topK: 1.5 },
    { temperature: 1, topP: 0 },
    { temperature: 1, topP: 1.01 },
  ])('refuses %o', (options) => {
    expect(() => sampler({ ...options, seed: 's' })).toThrow(failure('bad-settings'));
  });
});
