// Training and evaluation rows as JSON lines. A bad line is named by its number; nothing is skipped silently.
import { z } from 'zod';
import { FormatError } from './errors.ts';

/** A prompt, which is not labelled, and the completion the model is to learn. */
export interface TextRow {
  readonly kind: 'text';
  readonly prompt: string;
  readonly completion: string;
}

/** A row that is already tokens; needs no tokenizer. Labels stand at their own token; −100 is ignored. */
export interface TokenRow {
  readonly kind: 'tokens';
  readonly inputIds: readonly number[];
  readonly labels: readonly number[];
}

export type DataRow = TextRow | TokenRow;

/** Label of tokens that count nothing in the loss, as in PyTorch and Hugging Face. */
export const IGNORED_LABEL = -100;

const textSchema = z.object({ prompt: z.string(), completion: z.string().min(1, 'must not be empty') });
const tokenSchema = z
  .object({ input_ids: z.array(z.int().nonnegative()).min(1), labels: z.array(z.int().min(IGNORED_LABEL)).min(1) })
  .refine((row) => row.input_ids.length === row.labels.length, { message: 'input_ids and labels differ in length' })
  .refine((row) => row.labels.every((label) => label >= 0 || label === IGNORED_LABEL), {
    message: 'a label is neither a token nor −100',
  });

function parseRow(value: unknown, fail: (what: string) => never): DataRow {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail('is not a JSON object');
  const isTokens = 'input_ids' in value;
  const parsed = isTokens ? tokenSchema.safeParse(value) : textSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return fail([issue?.path.join('.'), issue?.message].filter(Boolean).join(': '));
  }
  return 'input_ids' in parsed.data
    ? { kind: 'tokens', inputIds: parsed.data.input_ids, labels: parsed.data.labels }
    : { kind: 'text', ...parsed.data };
}

/**
 * Rows of a JSONL text: `{"prompt", "completion"}` or `{"input_ids", "labels"}`. Blank lines are allowed. Throws
 * FormatError 'data-line' naming file and line, 'data-empty' when there is no row.
 */
export function parseDataLines(text: string, file = 'the data'): DataRow[] {
  const rows: DataRow[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const fail = (what: string, cause?: unknown): never => {
      const expected = 'Each line is {"prompt": …, "completion": …} or {"input_ids": […], "labels": […]}.';
      throw new FormatError('data-line', `Line ${i + 1} of ${file}: ${what}. ${expected}`, { cause });
    };
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      fail('is not JSON', cause);
    }
    rows.push(parseRow(value, fail));
  }
  if (rows.length === 0) throw new FormatError('data-empty', `There is no row in ${file}.`);
  return rows;
}
