// Accuracy for questions with few possible answers, by likelihood: what the model holds likeliest, not what it would write.

/** What the model makes of the candidates of one question. */
export interface Choice {
  /** Σ log p of each candidate's tokens after the prompt, nats. */
  readonly logLikelihoods: readonly number[];
  /** Tokens of each candidate; wanted for length-normalised accuracy. */
  readonly lengths: readonly number[];
  /** The right candidate, counted from 0. */
  readonly correct: number;
}

/**
 * The likeliest candidate, the first where several are; `lengthNormalised` compares log-likelihood per token, so that long
 * candidates are not at a disadvantage. Throws RangeError where there are no candidates, or numbers to compare them by.
 */
export function likeliestCandidate(
  { logLikelihoods, lengths }: Pick<Choice, 'logLikelihoods' | 'lengths'>,
  { lengthNormalised = false }: { readonly lengthNormalised?: boolean } = {},
): number {
  if (logLikelihoods.length === 0) throw new RangeError('A question without candidates has no likeliest one.');
  const scores = logLikelihoods.map((sum, i) => {
    const length = lengthNormalised ? lengths[i] : 1;
    if (Number.isNaN(sum)) throw new RangeError(`The log-likelihood of candidate ${i} is not a number.`);
    if (!(length !== undefined && length > 0))
      throw new RangeError(`Candidate ${i} has no tokens to be normalised by.`);
    return sum / length;
  });
  return scores.indexOf(Math.max(...scores));
}

/** Questions whose likeliest candidate is the right one, in per cent. Throws RangeError without questions. */
export function accuracy(choices: readonly Choice[], options: { readonly lengthNormalised?: boolean } = {}): number {
  if (choices.length === 0) throw new RangeError('There are no questions to score.');
  const right = choices.filter((choice) => likeliestCandidate(choice, options) === choice.correct);
  return (100 * right.length) / choices.length;
}
