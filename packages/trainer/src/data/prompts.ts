// What stands before the answer in rows that have one: plain prompts, instructions in their template, conversations in the
// model's. Training and generation both build prompts here, so that a model is asked as it was taught.
import type { DataRow } from '@weft/formats';
import { TrainerError } from '../errors.ts';
import { requireTokenizer } from '../model/base-model.ts';
import type { ChatMessage, ChatTemplate } from '../model/chat-template.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';

const ALPACA_TASK = 'Below is an instruction that describes a task';
const ALPACA_ANSWER = 'Write a response that appropriately completes the request.';

/**
 * How an instruction and its input become a prompt: `{instruction}` and `{input}` stand for the row's. One text for all
 * rows, or one for rows with an input and one for those without.
 */
export type InstructionTemplate = string | { readonly withInput: string; readonly withoutInput: string };

/** The format published with Stanford Alpaca (Taori et al., 2023; PROMPT_DICT in train.py). */
export const ALPACA_TEMPLATE: InstructionTemplate = {
  withInput: `${ALPACA_TASK}, paired with an input that provides further context. ${ALPACA_ANSWER}

### Instruction:
{instruction}

### Input:
{input}

### Response:`,
  withoutInput: `${ALPACA_TASK}. ${ALPACA_ANSWER}

### Instruction:
{instruction}

### Response:`,
};

/** Throws TrainerError 'bad-settings' for a template that leaves the instruction out. */
export function instructionPrompt(
  row: { readonly instruction: string; readonly input: string },
  template: InstructionTemplate = ALPACA_TEMPLATE,
): string {
  const chosen =
    typeof template === 'string' ? template : row.input === '' ? template.withoutInput : template.withInput;
  if (!chosen.includes('{instruction}'))
    throw new TrainerError('bad-settings', 'The instruction template has no {instruction} in it; say where it stands.');
  // In one pass, so that braces in the row's own text stay text.
  return chosen.replace(/\{(instruction|input)\}/g, (_, field: string) =>
    field === 'input' ? row.input : row.instruction,
  );
}

/** The template of the model. Throws TrainerError 'no-chat-template'. */
export function requireChatTemplate(tokenizer: TextTokenizer): ChatTemplate {
  if (tokenizer.chatTemplate) return tokenizer.chatTemplate;
  throw new TrainerError(
    'no-chat-template',
    'The model was published without a chat template, so rows with messages cannot be used. Take a chat model, add its chat_template.jinja to the folder, or turn the rows into {"prompt", "completion"}.',
  );
}

/**
 * Tokens of a conversation for the model to go on from. The template places BOS itself; none is added. Throws TrainerError
 * 'no-chat-template' or 'chat-template'.
 */
export function chatPromptTokens(tokenizer: TextTokenizer, messages: readonly ChatMessage[]): number[] {
  return tokenizer.encode(requireChatTemplate(tokenizer).render(messages, { addGenerationPrompt: true }));
}

/** A row as it is put to a model whose answer is scored. */
export interface Question {
  /** Tokens to generate from. */
  readonly promptIds: readonly number[];
  /** What was asked, in the row's own words: the prompt, the instruction with its input, the message before the answer. */
  readonly input: string;
  /** The answer the row gives. */
  readonly reference: string;
}

/**
 * The question of a row and its answer: for conversations the last assistant turn after all before it. null for plain
 * text, tokens, and conversations without an answer, which have no answer apart from a prompt. Throws TrainerError
 * 'no-tokenizer', 'no-chat-template' or 'chat-template'.
 */
export function questionOf(
  row: DataRow,
  model: { readonly tokenizer: TextTokenizer | null },
  options: { readonly instructionTemplate?: InstructionTemplate | undefined } = {},
): Question | null {
  if (row.kind === 'plain' || row.kind === 'tokens') return null;
  const tokenizer = requireTokenizer(model);
  const begun = (prompt: string) => [...(tokenizer.bos === null ? [] : [tokenizer.bos]), ...tokenizer.encode(prompt)];
  if (row.kind === 'text') return { promptIds: begun(row.prompt), input: row.prompt, reference: row.completion };
  if (row.kind === 'instruction') {
    const input = row.input === '' ? row.instruction : `${row.instruction}\n${row.input}`;
    return { promptIds: begun(instructionPrompt(row, options.instructionTemplate)), input, reference: row.output };
  }
  const last = row.messages.findLastIndex(({ role }) => role === 'assistant');
  const answer = row.messages[last];
  if (!answer) return null;
  return {
    promptIds: chatPromptTokens(tokenizer, row.messages.slice(0, last)),
    input: row.messages[last - 1]?.content ?? '',
    reference: answer.content,
  };
}
