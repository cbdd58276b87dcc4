// What a model must beat to have learnt more than which answers are frequent. Plain counting, no GPU.
import type { Answer } from './metrics/answers.ts';

/** Additive smoothing constants tried on the validation rows. */
const SMOOTHING = [1, 0.1, 0.01, 0.001] as const;

export interface UnigramBaseline {
  /** Loss on the test tokens, nats per token. */
  readonly loss: number;
  /** The smoothing constant that did best on the validation tokens. */
  readonly smoothing: number;
}

/** Mean −log p over `tokens`, p(t) = (count(t) + c) / (total + c·V). */
function crossEntropy(tokens: readonly number[], counts: Float64Array, total: number, c: number): number {
  let sum = 0;
  for (const token of tokens) sum -= Math.log(((counts[token] ?? 0) + c) / (total + c * counts.length));
  return sum / tokens.length;
}

/**
 * A unigram model of the labelled target tokens of the training rows, with add-c smoothing over the vocabulary, c chosen
 * on the validation tokens. All token lists hold ids in [0, vocabSize). Throws RangeError when a list is empty or an id
 * lies outside the vocabulary.
 */
export function unigramBaseline(
  tokens: { train: readonly number[]; validation: readonly number[]; test: readonly number[] },
  vocabSize: number,
): UnigramBaseline {
  for (const [split, list] of Object.entries(tokens)) {
    if (list.length === 0) throw new RangeError(`The ${split} rows have no labelled tokens.`);
    const stray = list.find((id) => !(id >= 0 && id < vocabSize));
    if (stray !== undefined)
      throw new RangeError(`Token ${stray} of the ${split} rows is outside the vocabulary of ${vocabSize}.`);
  }
  const counts = new Float64Array(vocabSize);
  for (const token of tokens.train) counts[token] = (counts[token] ?? 0) + 1;
  const score = (list: readonly number[], c: number) => crossEntropy(list, counts, tokens.train.length, c);
  const smoothing = SMOOTHING.reduce((best, c) =>
    score(tokens.validation, c) < score(tokens.validation, best) ? c : best,
  );
  return { loss: score(tokens.test, smoothing), smoothing };
}

/**
 * The answer that occurs most among the training answers, the earliest of those that tie: what a model says that has learnt
 * no more than that. Answers are compared as they stand. Throws RangeError without answers.
 */
export function majorityAnswer(trainingAnswers: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const answer of trainingAnswers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  const [first, ...others] = counts;
  if (!first) throw new RangeError('There are no training answers to find the commonest of.');
  return others.reduce((best, entry) => (entry[1] > best[1] ? entry : best), first)[0];
}

/** What a baseline answers, scored as a model's answers are. */
export interface QuestionAndAnswer {
  /** What was asked, in the row's own words, without a template. */
  readonly input: string;
  readonly references: readonly string[];
}

/** Every question answered with the commonest training answer. Throws RangeError without training answers. */
export function majorityAnswers(questions: readonly QuestionAndAnswer[], trainingAnswers: readonly string[]): Answer[] {
  const generated = majorityAnswer(trainingAnswers);
  return questions.map(({ references }) => ({ generated, references }));
}

/** Every question answered with itself: what scores of overlap give for copying. */
export function copiedInputs(questions: readonly QuestionAndAnswer[]): Answer[] {
  return questions.map(({ input, references }) => ({ generated: input, references }));
}
