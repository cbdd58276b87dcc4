// What scores of generated answers share. A score is made from the generated text alone: nothing here takes a prompt.

/** A generated answer, without its prompt, and what would have been right. */
export interface Answer {
  readonly generated: string;
  /** One or more right answers; the best match counts, as in SQuAD. */
  readonly references: readonly string[];
}

/** Agreement of an answer with one reference, from 0 to 1. */
export type AnswerScore = (generated: string, reference: string) => number;

/** Mean over the answers of the score with their best reference, × 100. Throws RangeError without answers or references. */
export function corpusScore(answers: readonly Answer[], score: AnswerScore): number {
  if (answers.length === 0) throw new RangeError('There are no answers to score.');
  let sum = 0;
  for (const [i, { generated, references }] of answers.entries()) {
    if (references.length === 0) throw new RangeError(`Answer ${i + 1} has no reference to be compared with.`);
    // No answer is no answer, also where a reference is made of nothing that counts.
    if (generated.trim() === '') continue;
    sum += Math.max(...references.map((reference) => score(generated, reference)));
  }
  return (100 * sum) / answers.length;
}
