// Rows to token sequences, labelled where the model is to learn: completions and the end of text, answers of an assistant,
// all of a plain text. Prompts are tokenised apart from what follows them and never labelled.
import { type DataRow, IGNORED_LABEL } from '@weft/formats';
import { TrainerError } from '../errors.ts';
import { requireTokenizer } from '../model/base-model.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';
import { type AssistantTurns, encodeChat } from './chat.ts';
import { type InstructionTemplate, instructionPrompt, requireChatTemplate } from './prompts.ts';

/** One training or evaluation sequence. `labels[t]` belongs to `inputIds[t]`, as in Hugging Face; the model shifts. */
export interface Example {
  readonly inputIds: readonly number[];
  readonly labels: readonly number[];
  /** Labelled targets: labels after the first position that are not ignored. */
  readonly targets: number;
}

export interface Examples {
  readonly examples: readonly Example[];
  /** Rows cut to the sequence length. Plain text is not cut but goes on in another window. */
  readonly truncated: number;
  /** Rows left out because nothing of them is labelled. */
  readonly unlabelled: number;
}

/** What rows are encoded for; a BaseModel is one. */
export interface EncodingModel {
  readonly config: { readonly vocabSize: number };
  readonly tokenizer: TextTokenizer | null;
}

export interface EncodeOptions {
  /** For rows of instruction, input and output. Left out: Alpaca's. */
  readonly instructionTemplate?: InstructionTemplate | undefined;
  /** Which answers of a conversation are learnt. Left out: all. */
  readonly assistantTurns?: AssistantTurns | undefined;
  /** Plain text: tokens from the start of one window to the next, at most what a window holds. Left out: no overlap. */
  readonly stride?: number | undefined;
}

interface Sequence {
  readonly inputIds: readonly number[];
  readonly labels: readonly number[];
}

interface Encoded {
  readonly sequences: readonly Sequence[];
  readonly truncated: boolean;
}

const ignored = (ids: readonly number[]): number[] => ids.map(() => IGNORED_LABEL);
const beginning = (tokenizer: TextTokenizer): number[] => (tokenizer.bos === null ? [] : [tokenizer.bos]);

/**
 * `start` (BOS, or nothing), prompt and completion within `length`: a row too long loses prompt tokens from the left, then
 * the completion's tail.
 */
function fit(start: readonly number[], prompt: Sequence, completion: Sequence, length: number): Encoded {
  const room = length - start.length;
  const promptRoom = Math.max(0, room - completion.inputIds.length);
  const from = Math.max(0, prompt.inputIds.length - promptRoom);
  const inputIds = [...start, ...prompt.inputIds.slice(from), ...completion.inputIds];
  const labels = [...ignored(start), ...prompt.labels.slice(from), ...completion.labels];
  return {
    sequences: [{ inputIds: inputIds.slice(0, length), labels: labels.slice(0, length) }],
    truncated: start.length + prompt.inputIds.length + completion.inputIds.length > length,
  };
}

function encodeText(prompt: string, completion: string, tokenizer: TextTokenizer, length: number): Encoded {
  const promptIds = tokenizer.encode(prompt);
  const completionIds = [...tokenizer.encode(completion), ...(tokenizer.eos === null ? [] : [tokenizer.eos])];
  return fit(
    beginning(tokenizer),
    { inputIds: promptIds, labels: ignored(promptIds) },
    { inputIds: completionIds, labels: completionIds },
    length,
  );
}

function encodeMessages(
  messages: Extract<DataRow, { kind: 'chat' }>['messages'],
  tokenizer: TextTokenizer,
  length: number,
  turns: AssistantTurns,
): Encoded {
  const { segments, shortened } = encodeChat(messages, requireChatTemplate(tokenizer), tokenizer, { length, turns });
  // Only the last exchange can still be too long: its answer, the last segment, is then the completion. BOS, where the
  // template wrote it, stays.
  const join = (parts: typeof segments): Sequence => ({
    inputIds: parts.flatMap(({ ids }) => ids),
    labels: parts.flatMap(({ ids, labelled }) => (labelled ? ids : ignored(ids))),
  });
  const prompt = join(segments.slice(0, -1));
  const start = prompt.inputIds[0] === tokenizer.bos ? beginning(tokenizer) : [];
  const rest = { inputIds: prompt.inputIds.slice(start.length), labels: prompt.labels.slice(start.length) };
  const { sequences, truncated } = fit(start, rest, join(segments.slice(-1)), length);
  return { sequences, truncated: truncated || shortened };
}

/**
 * A document in windows of at most `length` tokens, each begun with BOS where the tokenizer adds it. Without BOS a window
 * begins with the last token of the one before, so that either way every token is predicted.
 */
function encodePlain(text: string, tokenizer: TextTokenizer, length: number, stride: number | undefined): Encoded {
  const start = beginning(tokenizer);
  const ids = [...tokenizer.encode(text), ...(tokenizer.eos === null ? [] : [tokenizer.eos])];
  const room = length - start.length;
  const longest = start.length === 0 ? room - 1 : room;
  const step = stride ?? longest;
  if (!(Number.isInteger(step) && step >= 1 && step <= longest))
    throw new TrainerError(
      'bad-settings',
      `Windows of ${length} tokens cannot be ${step} tokens apart; the stride must be a whole number from 1 to ${longest}.`,
    );
  const windows = Math.max(1, Math.ceil((ids.length - room) / step) + 1);
  const sequences = Array.from({ length: windows }, (_, i) => {
    const window = ids.slice(i * step, i * step + room);
    return { inputIds: [...start, ...window], labels: [...ignored(start), ...window] };
  });
  return { sequences, truncated: false };
}

function encodeRow(row: DataRow, model: EncodingModel, length: number, options: EncodeOptions): Encoded {
  switch (row.kind) {
    case 'tokens': {
      const sequence = { inputIds: row.inputIds.slice(0, length), labels: row.labels.slice(0, length) };
      return { sequences: [sequence], truncated: row.inputIds.length > length };
    }
    case 'text':
      return encodeText(row.prompt, row.completion, requireTokenizer(model), length);
    case 'instruction': {
      const prompt = instructionPrompt(row, options.instructionTemplate);
      return encodeText(prompt, row.output, requireTokenizer(model), length);
    }
    case 'plain':
      return encodePlain(row.text, requireTokenizer(model), length, options.stride);
    case 'chat':
      return encodeMessages(row.messages, requireTokenizer(model), length, options.assistantTurns ?? 'all');
  }
}

/** Says which row of the data an error is about, where it is about one. */
function inRow<T>(number: number, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!(cause instanceof TrainerError) || cause.code !== 'chat-template') throw cause;
    throw new TrainerError(cause.code, `Row ${number}: ${cause.message}`, { cause });
  }
}

/**
 * Tokenises rows for sequences of at most `length` tokens. Throws TrainerError 'no-tokenizer' for text without one,
 * 'no-chat-template' or 'chat-template' for conversations the model's template cannot serve, 'bad-settings' for options
 * that make no sense, 'token-range' naming the first token outside the vocabulary, 'no-targets' when no row has anything
 * to learn.
 */
export function encodeRows(
  rows: readonly DataRow[],
  model: EncodingModel,
  length: number,
  options: EncodeOptions = {},
): Examples {
  const examples: Example[] = [];
  let truncated = 0;
  let unlabelled = 0;
  const { vocabSize } = model.config;
  for (const [i, row] of rows.entries()) {
    const encoded = inRow(i + 1, () => encodeRow(row, model, length, options));
    if (encoded.truncated) truncated += 1;
    let used = false;
    for (const { inputIds, labels } of encoded.sequences) {
      const stray = inputIds.find((id) => id >= vocabSize) ?? labels.find((id) => id >= vocabSize);
      if (stray !== undefined) {
        throw new TrainerError(
          'token-range',
          `Row ${i + 1} has token ${stray}; the model's vocabulary ends at ${vocabSize - 1}. The rows belong to another tokenizer.`,
        );
      }
      const targets = labels.slice(1).filter((label) => label !== IGNORED_LABEL).length;
      if (targets > 0) examples.push({ inputIds, labels, targets });
      used ||= targets > 0;
    }
    if (!used) unlabelled += 1;
  }
  if (examples.length === 0) {
    throw new TrainerError(
      'no-targets',
      'No row has a labelled target token: completions are empty, or cut off by the sequence length.',
    );
  }
  return { examples, truncated, unlabelled };
}
