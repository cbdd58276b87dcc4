// A model's chat template: a Jinja text, published beside the tokenizer, that writes a conversation as one string. Rendered
// as Hugging Face renders it but for the date, which is fixed: tokens must not depend on the day or a browser's language.
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { TrainerError } from '../errors.ts';

export interface ChatMessage {
  /** 'system', 'user' or 'assistant'; templates may know more. */
  readonly role: string;
  readonly content: string;
}

export interface RenderOptions {
  /** Ends with what opens the assistant's turn, for the model to go on from. */
  readonly addGenerationPrompt?: boolean;
}

export interface ChatTemplate {
  /** The conversation as text, special tokens by name. Throws TrainerError 'chat-template' with the template's reason. */
  render(messages: readonly ChatMessage[], options?: RenderOptions): string;
}

const MONTHS = 'January February March April May June July August September October November December'.split(' ');
/** 26 July 2024: what Llama 3's template writes where it cannot ask for a date. */
const DATE = { day: 26, month: 7, year: 2024 };

/** Python's strftime of {@link DATE} at midnight, for what templates ask of it. */
function formatDate(format: string): string {
  const twoDigits = (value: number) => String(value).padStart(2, '0');
  const month = MONTHS[DATE.month - 1] ?? '';
  const parts: Readonly<Record<string, string>> = {
    Y: String(DATE.year),
    y: twoDigits(DATE.year % 100),
    m: twoDigits(DATE.month),
    d: twoDigits(DATE.day),
    B: month,
    b: month.slice(0, 3),
    A: 'Friday',
    a: 'Fri',
    H: '00',
    M: '00',
    S: '00',
    '%': '%',
  };
  return format.replace(/%(.)/gs, (directive, letter: string) => {
    const part = parts[letter];
    if (part === undefined) throw new Error(`dates in the form ${directive} are not supported`);
    return part;
  });
}

function range(start: number, stop?: number, step = 1): number[] {
  const [first, end] = stop === undefined ? [0, start] : [start, stop];
  return Array.from({ length: Math.max(0, Math.ceil((end - first) / step)) }, (_, i) => first + i * step);
}

/** What every template may use: Jinja's constants and range, and the two functions Hugging Face adds. */
const GLOBALS: Readonly<Record<string, unknown>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  range,
  strftime_now: formatDate,
  raise_exception: (reason: string) => {
    throw new Error(reason);
  },
};

/**
 * @param source Jinja text. It is parsed when first used, so that a model whose template is beyond us still serves plain
 *   text.
 * @param specialTokens What templates call `bos_token`, `eos_token` and so on.
 */
export function chatTemplate(source: string, specialTokens: Readonly<Record<string, string>>): ChatTemplate {
  let program: ReturnType<typeof parse> | null = null;
  return {
    render(messages, { addGenerationPrompt = false } = {}) {
      try {
        program ??= parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
        const environment = new Environment();
        const variables = {
          ...GLOBALS,
          tools: null,
          documents: null,
          ...specialTokens,
          messages: messages.map(({ role, content }) => ({ role, content })),
          add_generation_prompt: addGenerationPrompt,
        };
        for (const [name, value] of Object.entries(variables)) environment.set(name, value);
        return String(new Interpreter(environment).run(program).value);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new TrainerError('chat-template', `The model's chat template refuses a conversation: ${reason}.`, {
          cause,
        });
      }
    },
  };
}
