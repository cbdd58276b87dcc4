// The questions of a data file: what is asked, the answer that is right, and what somebody answers who knows nothing.
import type { DataRow } from '@weft/formats';
import { type Answer, type BaseModel, exactMatch, type Question, questionOf, rougeL } from '@weft/trainer';
import { CommandError } from '../../command.ts';

export interface AskedRow extends Question {
  readonly row: DataRow;
}

/** Throws CommandError 'no-questions' naming the first row that has no answer apart from a prompt. */
export function questionsOf(
  rows: readonly DataRow[],
  model: Pick<BaseModel, 'tokenizer'>,
  options: Parameters<typeof questionOf>[2],
): AskedRow[] {
  return rows.map((row, i) => {
    const question = questionOf(row, model, options);
    if (question) return { ...question, row };
    throw new CommandError(
      'no-questions',
      `Row ${i + 1} has no answer apart from its prompt; --choices and --generate take rows of prompt and completion, instruction and output, or messages.`,
    );
  });
}

/** Different answers in order of first appearance, and how often each is given. White space around them does not count. */
export function countAnswers(answers: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const answer of answers) counts.set(answer.trim(), (counts.get(answer.trim()) ?? 0) + 1);
  return counts;
}

/** The answer most often given, the first of several. Throws RangeError without answers. */
export function majorityAnswer(answers: readonly string[]): string {
  const [first, ...rest] = countAnswers(answers);
  if (!first) throw new RangeError('There are no answers to count.');
  return rest.reduce((best, entry) => (entry[1] > best[1] ? entry : best), first)[0];
}

/** Scores of answers, per cent. */
export interface AnswerScores {
  readonly exactMatch: number;
  readonly rougeL: number;
}

export function scoresOf(answers: readonly Answer[]): AnswerScores {
  return { exactMatch: exactMatch(answers), rougeL: rougeL(answers) };
}

/** Scores of answering every question by the same rule. */
export const scoresOfRule = (questions: readonly Question[], rule: (question: Question) => string): AnswerScores =>
  scoresOf(questions.map((question) => ({ generated: rule(question), references: [question.reference] })));
