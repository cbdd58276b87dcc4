import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { accuracy, exactMatch, likeliestCandidate, normaliseAnswer, rougeL, rougeLScore, rougeWords } from './index.ts';

const gold = ['The cat sat.', 'Ÿes, 42!', 'the', '?!', '猫が好き', '🦆'];
const word = fc.constantFrom('the', 'cat', 'sat', 'on', 'a', 'Mat', 'x1');
const sentence = fc.array(word, { minLength: 1, maxLength: 12 }).map((words) => words.join(' '));

describe.each([
  ['exact match', exactMatch],
  ['ROUGE-L', rougeL],
])('%s', (_, metric) => {
  it('gives gold 100 and empty answers 0, whatever the references', () => {
    expect(metric(gold.map((text) => ({ generated: text, references: [text] })))).toBe(100);
    for (const generated of ['', '  \n'])
      expect(metric(gold.map((text) => ({ generated, references: [text] })))).toBe(0);
  });

  it('does not give a prompt credit: it is worth less with one than without', () => {
    const answer = { generated: 'a grey cat', references: ['a grey cat'] };
    const echoed = { generated: `What animal sat on the mat? ${answer.generated}`, references: answer.references };
    expect(metric([echoed])).toBeLessThan(metric([answer]));
  });

  it('takes the best of several references, and the mean over answers', () => {
    const answers = [
      { generated: 'the cat', references: ['dog', 'cat the bird', 'The cat!'] },
      { generated: 'nothing', references: ['something else', 'anything'] },
    ];
    expect(metric(answers.slice(0, 1))).toBe(100);
    expect(metric(answers)).toBe(50);
  });

  it('refuses to score nothing', () => {
    expect(() => metric([])).toThrow(RangeError);
    expect(() => metric([{ generated: 'a', references: [] }])).toThrow(/Answer 1 has no reference/);
  });
});

describe('exact match', () => {
  it('normalises as SQuAD does', () => {
    expect(normaliseAnswer('  The  Cat,\tand a DOG! ')).toBe('cat and dog');
    expect(normaliseAnswer("it's a-b (an) 'x'")).toBe('its ab x');
    expect(normaliseAnswer('another theatre año 3.5')).toBe('another theatre año 35');
    expect(normaliseAnswer('A.')).toBe('');
  });

  it('is all or nothing', () => {
    expect(exactMatch([{ generated: 'cat!', references: ['The cat'] }])).toBe(100);
    expect(exactMatch([{ generated: 'cats', references: ['cat'] }])).toBe(0);
    // Nothing is left of the reference, so it must be met as it stands.
    expect(exactMatch([{ generated: 'an', references: ['the'] }])).toBe(0);
  });
});

describe('ROUGE-L', () => {
  it('is the F-measure of the longest common subsequence', () => {
    // Lin (2004), section 3: "police killed the gunman" against "police kill the gunman" and "the gunman kill police".
    expect(rougeLScore('police kill the gunman', 'police killed the gunman')).toBeCloseTo(3 / 4, 12);
    expect(rougeLScore('the gunman kill police', 'police killed the gunman')).toBeCloseTo(2 / 4, 12);
    // lcs = 2: P = 2/5, R = 2/3, F = 1/2.
    expect(rougeLScore('a b c d e', 'b x d')).toBeCloseTo(0.5, 12);
    expect(rougeLScore('x', 'y')).toBe(0);
  });

  it('counts words of letters and digits in any script, lower case', () => {
    expect(rougeWords('The cat-sat; 3.5 Ünder')).toEqual(['the', 'cat', 'sat', '3', '5', 'ünder']);
    expect(rougeWords('... !')).toEqual([]);
  });

  it('is the same both ways round, and 1 only for the same words', () => {
    fc.assert(
      fc.property(sentence, sentence, (a, b) => {
        expect(rougeLScore(a, b)).toBeCloseTo(rougeLScore(b, a), 12);
        expect(rougeLScore(a, b) > 1 - 1e-12).toBe(a.toLowerCase() === b.toLowerCase());
      }),
    );
  });
});

describe('accuracy by likelihood', () => {
  const choice = (correct: number, logLikelihoods: number[], lengths: number[] = logLikelihoods.map(() => 1)) => ({
    logLikelihoods,
    lengths,
    correct,
  });

  it('is the share of questions whose likeliest candidate is right', () => {
    const choices = [choice(1, [-3, -1, -2]), choice(0, [-3, -1]), choice(2, [-9, -8, -7]), choice(0, [-1])];
    expect(accuracy(choices)).toBe(75);
  });

  it('takes the first of candidates that tie', () => {
    expect(likeliestCandidate(choice(0, [-2, -1, -1]))).toBe(1);
    const impossible = Number.NEGATIVE_INFINITY;
    expect(likeliestCandidate(choice(0, [impossible, impossible]))).toBe(0);
  });

  it('does not favour short candidates when normalised by length', () => {
    const long = choice(1, [-2, -3], [1, 3]);
    expect(likeliestCandidate(long)).toBe(0);
    expect(likeliestCandidate(long, { lengthNormalised: true })).toBe(1);
    expect([accuracy([long]), accuracy([long], { lengthNormalised: true })]).toEqual([0, 100]);
  });

  it('refuses what cannot be compared', () => {
    expect(() => accuracy([])).toThrow(RangeError);
    expect(() => likeliestCandidate(choice(0, []))).toThrow(RangeError);
    expect(() => likeliestCandidate(choice(0, [-1, Number.NaN]))).toThrow(/candidate 1/);
    expect(() => likeliestCandidate(choice(0, [-1, -2], [1, 0]), { lengthNormalised: true })).toThrow(/Candidate 1/);
    expect(() => likeliestCandidate(choice(0, [-1, -2], [1]), { lengthNormalised: true })).toThrow(/Candidate 1/);
  });
});
