// ROUGE-L of generated answers: how much of a reference they say in its order. The longest common subsequence is js-rouge's;
// words are split here, since its own splitter is made for English sentences.
import { l as sentenceRougeL } from 'js-rouge';
import { type Answer, corpusScore } from './answers.ts';

/**
 * Lower-case words of letters and digits, as rouge_score (google-research) splits them without its stemmer, but for every
 * script: for ASCII text the two are the same.
 */
export function rougeWords(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
}

/**
 * F-measure of the longest common subsequence of words, from 0 to 1: 2PR / (P + R) with P = lcs / |generated| and
 * R = lcs / |reference| (Lin, 2004, sentence level, β = 1). A reference without words must be met as it stands.
 */
export function rougeLScore(generated: string, reference: string): number {
  if (rougeWords(reference).length === 0) return Number(generated.trim() === reference.trim());
  if (rougeWords(generated).length === 0) return 0;
  return sentenceRougeL(generated, reference, { segmenter: (text) => [text], tokenizer: rougeWords });
}

/** Mean ROUGE-L F-measure with the best reference, × 100. Throws RangeError without answers. */
export function rougeL(answers: readonly Answer[]): number {
  return corpusScore(answers, rougeLScore);
}
