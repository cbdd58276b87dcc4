// Rows of training and evaluation data, whatever file they come from: what kinds there are, and one row checked. Turning them into
// tokens is the trainer's.
import { z } from 'zod';

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

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** A conversation for the model's chat template. The last message is the assistant's. */
export interface ChatRow {
  readonly kind: 'chat';
  readonly messages: readonly ChatMessage[];
}

/** A task, what it is about ('' when nothing), and the answer the model is to learn. */
export interface InstructionRow {
  readonly kind: 'instruction';
  readonly instruction: string;
  readonly input: string;
  readonly output: string;
}

/** Text that is learned as a whole, in windows of the sequence length. */
export interface PlainRow {
  readonly kind: 'plain';
  readonly text: string;
}

export type DataRow = TextRow | TokenRow | ChatRow | InstructionRow | PlainRow;

/** Label of tokens that count nothing in the loss, as in PyTorch and Hugging Face. */
export const IGNORED_LABEL = -100;

/** Roles that chat templates know. */
export const CHAT_ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;

const full = z.string().min(1, 'must not be empty');

const textSchema = z.object({ prompt: z.string(), completion: full });

const tokenSchema = z
  .object({ input_ids: z.array(z.int().nonnegative()).min(1), labels: z.array(z.int().min(IGNORED_LABEL)).min(1) })
  .refine((row) => row.input_ids.length === row.labels.length, { message: 'input_ids and labels differ in length' })
  .refine((row) => row.labels.every((label) => label >= 0 || label === IGNORED_LABEL), {
    message: 'a label is neither a token nor −100',
  });

const messageSchema = z.object({
  role: z.enum(CHAT_ROLES, { error: `must be one of ${CHAT_ROLES.join(', ')}` }),
  content: z.string('must be a string'),
  tool_calls: z.array(z.unknown()).max(0, 'calls of tools are not supported').nullish(),
});

const chatSchema = z
  .object({ messages: z.array(messageSchema).min(1, 'must not be empty') })
  .refine((row) => row.messages.at(-1)?.role === 'assistant', {
    message: 'the last message must be the assistant’s, which is what is learned',
    path: ['messages'],
  })
  .refine((row) => row.messages.at(-1)?.content !== '', {
    message: 'the last message must not be empty',
    path: ['messages'],
  });

const instructionSchema = z.object({
  instruction: z.string(),
  input: z
    .string()
    .nullish()
    .transform((input) => input ?? ''),
  output: full,
});

const plainSchema = z.object({ text: full });

/** The kinds, told apart by a key that only they have, in this order: Alpaca's rows have a `text` too. */
const KINDS = [
  {
    keys: ['input_ids'],
    schema: tokenSchema.transform(
      ({ input_ids, labels }): DataRow => ({ kind: 'tokens', inputIds: input_ids, labels }),
    ),
  },
  {
    keys: ['messages'],
    schema: chatSchema.transform(({ messages }): DataRow => {
      return { kind: 'chat', messages: messages.map(({ role, content }) => ({ role, content })) };
    }),
  },
  { keys: ['prompt', 'completion'], schema: textSchema.transform((row): DataRow => ({ kind: 'text', ...row })) },
  {
    keys: ['instruction', 'output'],
    schema: instructionSchema.transform((row): DataRow => ({ kind: 'instruction', ...row })),
  },
  { keys: ['text'], schema: plainSchema.transform((row): DataRow => ({ kind: 'plain', ...row })) },
];

/** The fields of the kinds that are text throughout, as a table has them. */
export const TEXT_KINDS: readonly { readonly required: readonly string[]; readonly optional: readonly string[] }[] = [
  { required: ['prompt', 'completion'], optional: [] },
  { required: ['instruction', 'output'], optional: ['input'] },
  { required: ['text'], optional: [] },
];

/** Checks one row. `fail` says where it stands and throws. */
export function parseRow(value: unknown, fail: (what: string, cause?: unknown) => never): DataRow {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail('is not a JSON object');
  const kind = KINDS.find(({ keys }) => keys.some((key) => Object.hasOwn(value, key)));
  if (!kind) return fail(`has none of the fields ${KINDS.flatMap(({ keys }) => keys).join(', ')}`);
  const parsed = kind.schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  return fail([issue?.path.join('.'), issue?.message].filter(Boolean).join(': '), parsed.error);
}
