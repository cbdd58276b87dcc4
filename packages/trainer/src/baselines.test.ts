import { describe, expect, it } from 'vitest';
import { unigramBaseline } from './baselines.ts';

describe('unigram baseline', () => {
  it('is the entropy of the training answers where test and training agree', () => {
    const train = Array.from({ length: 1000 }, (_, i) => (i % 4 === 0 ? 7 : 3));
    const { loss, smoothing } = unigramBaseline({ train, validation: train, test: train }, 16);
    expect(smoothing).toBe(0.001);
    expect(loss).toBeCloseTo(-(0.25 * Math.log(0.25) + 0.75 * Math.log(0.75)), 4);
  });

  it('smooths more where validation holds unseen tokens', () => {
    const { loss, smoothing } = unigramBaseline({ train: [1, 2], validation: [3, 4], test: [5] }, 8);
    expect(smoothing).toBe(1);
    expect(loss).toBeCloseTo(Math.log(10), 12);
  });

  it('refuses empty lists and strange tokens', () => {
    expect(() => unigramBaseline({ train: [1], validation: [], test: [1] }, 4)).toThrow(/validation/);
    expect(() => unigramBaseline({ train: [9], validation: [1], test: [1] }, 4)).toThrow(/outside/);
  });
});
