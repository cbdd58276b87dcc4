import { describe, expect, it } from 'vitest';
import { seededRandom, shuffled } from './random.ts';

describe('seeded random numbers', () => {
  it('are a stream of their own for every list of names', () => {
    const draw = (...names: string[]) => {
      const random = seededRandom(...names);
      return Array.from({ length: 5 }, () => random.uniform());
    };
    expect(draw('run', 'layer')).toEqual(draw('run', 'layer'));
    expect(draw('run', 'layer')).not.toEqual(draw('run', 'other'));
    expect(draw('ab', 'c')).not.toEqual(draw('a', 'bc'));
  });

  it('are uniform in [0, 1)', () => {
    const random = seededRandom('uniform');
    const values = Array.from({ length: 20_000 }, () => random.uniform());
    expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
    // The mean of n uniform numbers has a standard deviation of 1/√(12n) = 0.002.
    expect(Math.abs(values.reduce((sum, value) => sum + value, 0) / values.length - 0.5)).toBeLessThan(0.01);
  });

  it('shuffle into every order alike', () => {
    const random = seededRandom('orders');
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i += 1) {
      const order = shuffled(['a', 'b', 'c'], random).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    // 1000 expected of each, standard deviation 29.
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});
