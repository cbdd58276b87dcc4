// Share of answers that say exactly what a reference says, as the evaluation script of SQuAD v1.1 normalises both.
import { type Answer, corpusScore } from './answers.ts';

/**
 * Lower case, without ASCII punctuation, without the articles a, an and the, white space as single spaces: in this order,
 * as `normalize_answer` of SQuAD v1.1 (Rajpurkar et al., 2016).
 */
export function normaliseAnswer(text: string): string {
  return text
    .toLowerCase()
    .replace(/[!-/:-@[-`{-~]/g, '')
    .replace(/(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu, ' ')
    .split(/\s+/)
    .filter((word) => word !== '')
    .join(' ');
}

/** Where normalising leaves nothing of the reference, as of "The" or "?", it must be met as it stands. */
function matches(generated: string, reference: string): number {
  const normal = normaliseAnswer(reference);
  return Number(normal === '' ? generated.trim() === reference.trim() : normaliseAnswer(generated) === normal);
}

/** Answers equal to a reference after {@link normaliseAnswer}, in per cent. Throws RangeError without answers. */
export function exactMatch(answers: readonly Answer[]): number {
  return corpusScore(answers, matches);
}
