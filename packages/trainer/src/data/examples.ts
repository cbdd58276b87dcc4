// Rows to token sequences: prompt and completion tokenised apart and joined, the end of text labelled, the prompt not.
import { type DataRow, IGNORED_LABEL } from '@weft/formats';
import { TrainerError } from '../errors.ts';
import { type BaseModel, requireTokenizer } from '../model/base-model.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';

/** One training or evaluation sequence. `labels[t]` belongs to `inputIds[t]`, as in Hugging Face; the model shifts. */
export interface Example {
  readonly inputIds: readonly number[];
  readonly labels: readonly number[];
  /** Labelled targets: labels after the first position that are not ignored. */
  readonly targets: number;
}

export interface Examples {
  readonly examples: readonly Example[];
  /** Rows cut to the sequence length. */
  readonly truncated: number;
  /** Rows left out because nothing of them is labelled. */
  readonly unlabelled: number;
}

function encodeText(row: { prompt: string; completion: string }, tokenizer: TextTokenizer, length: number) {
  const prompt = tokenizer.encode(row.prompt);
  const completion = tokenizer.encode(row.completion);
  if (tokenizer.eos !== null) completion.push(tokenizer.eos);
  const start = tokenizer.bos === null ? [] : [tokenizer.bos];
  // A row too long loses prompt tokens from the left, then the completion's tail.
  const room = length - start.length;
  const kept = prompt.slice(Math.max(0, prompt.length - Math.max(0, room - completion.length)));
  const promptPart = completion.length >= room ? [] : kept;
  const completionPart = completion.slice(0, room - promptPart.length);
  return {
    inputIds: [...start, ...promptPart, ...completionPart],
    labels: [...[...start, ...promptPart].map(() => IGNORED_LABEL), ...completionPart],
    truncated: start.length + prompt.length + completion.length > length,
  };
}

/**
 * Tokenises rows for sequences of at most `length` tokens. Throws TrainerError 'no-tokenizer' for text without one,
 * 'token-range' naming the first token outside the vocabulary, 'no-targets' when no row has anything to learn.
 */
export function encodeRows(rows: readonly DataRow[], model: BaseModel, length: number): Examples {
  const examples: Example[] = [];
  let truncated = 0;
  let unlabelled = 0;
  const { vocabSize } = model.config;
  for (const [i, row] of rows.entries()) {
    const encoded =
      row.kind === 'text'
        ? encodeText(row, requireTokenizer(model), length)
        : {
            inputIds: row.inputIds.slice(0, length),
            labels: row.labels.slice(0, length),
            truncated: row.inputIds.length > length,
          };
    const stray = [...encoded.inputIds, ...encoded.labels].find((id) => id >= vocabSize);
    if (stray !== undefined) {
      throw new TrainerError(
        'token-range',
        `Row ${i + 1} has token ${stray}; the model's vocabulary ends at ${vocabSize - 1}. The rows belong to another tokenizer.`,
      );
    }
    if (encoded.truncated) truncated += 1;
    const targets = encoded.labels.slice(1).filter((label) => label !== IGNORED_LABEL).length;
    if (targets === 0) unlabelled += 1;
    else examples.push({ inputIds: encoded.inputIds, labels: encoded.labels, targets });
  }
  if (examples.length === 0) {
    throw new TrainerError(
      'no-targets',
      'No row has a labelled target token: completions are empty, or cut off by the sequence length.',
    );
  }
  return { examples, truncated, unlabelled };
}
