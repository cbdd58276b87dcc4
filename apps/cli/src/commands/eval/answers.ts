// Scores of generated answers: what the model writes after each prompt, the prompt excluded, beside what somebody scores
// who answers every question alike or repeats it.
import type { LoraAdapter } from '@weft/formats';
import { Decoder, type GpuModel, generate } from '@weft/trainer';
import type { Io } from '../../command.ts';
import { type AnswerScores, type AskedRow, majorityAnswer, scoresOf, scoresOfRule } from './questions.ts';

export interface GenerationScores extends AnswerScores {
  readonly questions: number;
  /** Prompts that lost their beginning because the answer needs room in the context. */
  readonly shortenedPrompts: number;
  /** Of the most frequent answer of the training file, given to every question; null without one. */
  readonly majority: AnswerScores | null;
  /** Of the question itself as its answer. */
  readonly copyInput: AnswerScores;
  readonly answers: readonly { readonly generated: string; readonly reference: string }[];
}

/** The end of a prompt, after its begin-of-text token where it has one. */
function shorten(prompt: readonly number[], room: number, bos: number | null): readonly number[] {
  if (prompt.length <= room) return prompt;
  const start = bos !== null && prompt[0] === bos ? [bos] : [];
  return [...start, ...prompt.slice(prompt.length - (room - start.length))];
}

export async function scoreGenerated(
  model: GpuModel,
  adapter: LoraAdapter | null,
  questions: readonly AskedRow[],
  { maxTokens, train }: { maxTokens: number; train: readonly AskedRow[] | null },
  io: Io,
): Promise<GenerationScores> {
  const { config, tokenizer } = model.model;
  // One token of the prompt at least.
  const answerRoom = Math.min(maxTokens, config.maxPositions - 1);
  const room = config.maxPositions - answerRoom;
  const prompts = questions.map(({ promptIds }) => shorten(promptIds, room, tokenizer?.bos ?? null));
  const capacity = Math.max(...prompts.map((prompt) => prompt.length)) + answerRoom;
  const decoder = await Decoder.create(model, capacity, adapter);
  const generated: string[] = [];
  try {
    for (const prompt of prompts) {
      io.status(`generating answers ${generated.length}/${prompts.length}`);
      const { text } = await generate(decoder, prompt, { maxTokens: answerRoom, signal: io.signal });
      generated.push(text);
    }
  } finally {
    decoder.destroy();
  }
  const answers = questions.map(({ reference }, i) => ({ generated: generated[i] ?? '', reference }));
  const majority = train && majorityAnswer(train.map(({ reference }) => reference));
  return {
    ...scoresOf(answers.map((answer) => ({ generated: answer.generated, references: [answer.reference] }))),
    questions: questions.length,
    shortenedPrompts: prompts.filter((prompt, i) => prompt !== questions[i]?.promptIds).length,
    majority: majority === null ? null : scoresOfRule(questions, () => majority),
    copyInput: scoresOfRule(questions, ({ input }) => input),
    answers,
  };
}
