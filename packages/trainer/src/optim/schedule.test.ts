import { describe, expect, it } from 'vitest';
import { learningRateAt } from './schedule.ts';

describe('learning rate', () => {
  const plan = { learningRate: 1, warmupSteps: 3, steps: 11 } as const;
  const rates = (schedule: 'constant' | 'linear' | 'cosine') =>
    Array.from({ length: plan.steps }, (_, i) => learningRateAt({ ...plan, schedule }, i + 1));

  it.each(['constant', 'linear', 'cosine'] as const)('%s rises evenly while it warms up', (schedule) => {
    expect(rates(schedule).slice(0, 4)).toEqual([0.25, 0.5, 0.75, 1]);
  });

  it('stays, falls in a line, or along half a cosine', () => {
    expect(rates('constant').slice(3)).toEqual(Array.from({ length: 8 }, () => 1));
    expect(rates('linear').slice(3)).toEqual([1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
    expect(rates('cosine')[7]).toBeCloseTo(0.5, 12);
    expect(rates('cosine').at(-1)).toBeGreaterThan(0);
  });

  it('needs no warm-up', () => {
    expect(learningRateAt({ learningRate: 2, schedule: 'linear', warmupSteps: 0, steps: 4 }, 1)).toBe(2);
  });
});
