// Accuracy by label likelihood: every candidate is put in the answer's place, and the likeliest is the model's choice. As
// in training, a candidate's end of text counts with it, so that one that begins another is not at an advantage.
import { readFile } from 'node:fs/promises';
import type { DataRow, LoraAdapter } from '@weft/formats';
import {
  accuracy,
  type BaseModel,
  type Choice,
  type EncodeOptions,
  Evaluator,
  type Example,
  encodeRows,
  type GpuModel,
  likeliestCandidate,
} from '@weft/trainer';
import { CommandError, UsageError } from '../../command.ts';
import { type AskedRow, countAnswers, majorityAnswer } from './questions.ts';

/** More different answers than this are not a choice but free text. */
const MOST_CANDIDATES = 32;

export interface ChoiceScores {
  readonly candidates: readonly string[];
  readonly questions: number;
  /** Questions whose right answer is no candidate; they count as wrong. */
  readonly unknownAnswers: number;
  /** Per cent. */
  readonly accuracy: number;
  /** By log-likelihood per token. */
  readonly lengthNormalisedAccuracy: number;
  /** Of the most frequent answer of the training file; null without one. */
  readonly majorityAccuracy: number | null;
  readonly answers: readonly { readonly chosen: string; readonly reference: string }[];
}

/** One candidate a line. Throws CommandError 'no-such-file', UsageError for fewer than two. */
export async function readLabels(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new CommandError('no-such-file', `There is no file ${file} of labels.`, { cause });
  });
  const labels = [...countAnswers(text.split('\n')).keys()].filter((label) => label !== '');
  if (labels.length < 2)
    throw new UsageError(`--labels ${file} has ${labels.length} labels; write two or more, one a line.`);
  return labels;
}

/** The different answers of some rows, where they are few. Throws UsageError where they are not. */
export function candidatesOfAnswers(answers: readonly string[], file: string): string[] {
  const candidates = [...countAnswers(answers).keys()];
  if (candidates.length <= MOST_CANDIDATES && candidates.length >= 2) return candidates.sort();
  throw new UsageError(
    `${file} has ${candidates.length} different answers, where --choices takes 2 to ${MOST_CANDIDATES}. Give the candidates with --labels FILE, one a line; for free text use --generate.`,
  );
}

/** The row with another answer in place of its own, with the white space the own one has around it. */
function withAnswer(row: DataRow, answer: string): DataRow {
  const like = (own: string) => own.replace(/^(\s*)[\s\S]*?(\s*)$/, (_, before, after) => `${before}${answer}${after}`);
  if (row.kind === 'text') return { ...row, completion: like(row.completion) };
  if (row.kind === 'instruction') return { ...row, output: like(row.output) };
  if (row.kind !== 'chat') return row;
  const last = row.messages.findLastIndex(({ role }) => role === 'assistant');
  const messages = row.messages.slice(0, last + 1);
  return {
    ...row,
    messages: messages.map((each, i) => (i === last ? { ...each, content: like(each.content) } : each)),
  };
}

/** Every candidate after every question, candidates of one question side by side. */
function candidateExamples(
  questions: readonly AskedRow[],
  candidates: readonly string[],
  model: BaseModel,
  options: EncodeOptions,
): readonly Example[] {
  const rows = questions.flatMap(({ row }) => candidates.map((candidate) => withAnswer(row, candidate)));
  const { examples, unlabelled } = encodeRows(rows, model, model.config.maxPositions, {
    ...options,
    assistantTurns: 'last',
  });
  if (unlabelled === 0) return examples;
  throw new CommandError('no-room', `${unlabelled} candidates do not fit the model's context beside their prompts.`);
}

export async function scoreChoices(
  model: GpuModel,
  adapter: LoraAdapter | null,
  questions: readonly AskedRow[],
  candidates: readonly string[],
  { encoding, train, signal }: { encoding: EncodeOptions; train: readonly AskedRow[] | null; signal: AbortSignal },
): Promise<ChoiceScores> {
  const examples = candidateExamples(questions, candidates, model.model, encoding);
  const evaluator = await Evaluator.create(model, adapter, examples);
  let sums: number[];
  try {
    sums = await evaluator.sums(examples, signal);
  } finally {
    evaluator.destroy();
  }
  const choices = questions.map(({ reference }, i): Choice => {
    const from = i * candidates.length;
    const own = examples.slice(from, from + candidates.length);
    return {
      logLikelihoods: sums.slice(from, from + candidates.length).map((sum) => -sum),
      lengths: own.map(({ targets }) => targets),
      correct: candidates.indexOf(reference.trim()),
    };
  });
  const majority = train && majorityAnswer(train.map(({ reference }) => reference));
  const right = questions.filter(({ reference }) => reference.trim() === majority).length;
  return {
    candidates,
    questions: questions.length,
    unknownAnswers: choices.filter(({ correct }) => correct < 0).length,
    accuracy: accuracy(choices),
    lengthNormalisedAccuracy: accuracy(choices, { lengthNormalised: true }),
    majorityAccuracy: train ? (100 * right) / questions.length : null,
    answers: choices.map((choice, i) => ({
      chosen: candidates[likeliestCandidate(choice)] ?? '',
      reference: questions[i]?.reference ?? '',
    })),
  };
}
