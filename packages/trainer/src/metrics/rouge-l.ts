// ROUGE-L of generated answers: how much of a reference they say in its order. Written here because js-rouge, which agrees
// (see the test), brings its sentence splitter along: 73 KB in every volunteer's page for the recurrence below.
import { type Answer, corpusScore } from './answers.ts';

/**
 * Lower-case words of letters and digits, as rouge_score (google-research) splits them without its stemmer, but for every
 * script: for ASCII text the two are the same.
 */
export function rougeWords(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
}

/** Length of the longest common subsequence; two rows of the usual table. */
function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  let previous = new Uint32Array(b.length + 1);
  for (const word of a) {
    const current = new Uint32Array(b.length + 1);
    for (const [j, other] of b.entries())
      current[j + 1] = word === other ? (previous[j] ?? 0) + 1 : Math.max(previous[j + 1] ?? 0, current[j] ?? 0);
    previous = current;
  }
  return previous[b.length] ?? 0;
}

/**
 * F-measure of the longest common subsequence of words, from 0 to 1: 2PR / (P + R) with P = lcs / |generated| and
 * R = lcs / |reference| (Lin, 2004, sentence level, β = 1). A reference without words must be met as it stands.
 */
export function rougeLScore(generated: string, reference: string): number {
  const [said, wanted] = [rougeWords(generated), rougeWords(reference)];
  if (wanted.length === 0) return Number(generated.trim() === reference.trim());
  return (2 * commonSubsequence(said, wanted)) / (said.length + wanted.length);
}

/** Mean ROUGE-L F-measure with the best reference, × 100. Throws RangeError without answers. */
export function rougeL(answers: readonly Answer[]): number {
  return corpusScore(answers, rougeLScore);
}
