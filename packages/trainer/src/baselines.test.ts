import { describe, expect, it } from 'vitest';
import { copiedInputs, majorityAnswer, majorityAnswers, unigramBaseline } from './baselines.ts';
import { exactMatch, rougeL } from './metrics/index.ts';

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

describe('answers without a model', () => {
  const questions = [
    { input: 'is it red', references: ['yes'] },
    { input: 'is it red, yes or no', references: ['no', 'yes or no'] },
  ];

  it('are the commonest training answer, the earliest at a tie', () => {
    expect(majorityAnswer(['no', 'yes', 'yes', 'no'])).toBe('no');
    expect(majorityAnswer(['no', 'yes', 'yes'])).toBe('yes');
    expect(() => majorityAnswer([])).toThrow(RangeError);
    expect(exactMatch(majorityAnswers(questions, ['maybe', 'yes', 'yes']))).toBe(50);
  });

  it('or the question itself', () => {
    expect(exactMatch(copiedInputs(questions))).toBe(0);
    // Of 6 and 3 words 3 agree: F = 2 · 3 / 9.
    expect(rougeL(copiedInputs(questions))).toBeCloseTo((100 * 6) / 9 / 2, 12);
  });
});
