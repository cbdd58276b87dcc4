// Conversations to labelled tokens. Which text is the assistant's is found by rendering: what a turn adds to the
// conversation before it is that turn. No template has to mark anything, but earlier turns must read the same ever after.
import { TrainerError } from '../errors.ts';
import type { ChatMessage, ChatTemplate } from '../model/chat-template.ts';
import type { TextTokenizer } from '../model/tokenizer.ts';

/** Which answers of a conversation are learnt: each, or the last alone, with those before it as context. */
export type AssistantTurns = 'all' | 'last';

/** Part of a sequence, labelled as a whole or not at all. */
export interface Segment {
  readonly ids: readonly number[];
  readonly labelled: boolean;
}

/** Places in the rendered text: an assistant's turn from its first character to after its end-of-turn token. */
interface Turn {
  readonly start: number;
  readonly end: number;
}

/** The text up to and with the turn's end-of-turn token, where it ends in one and white space after it. */
function endOfTurn(text: string, tokenizer: TextTokenizer): number {
  const trimmed = text.trimEnd();
  return [...tokenizer.specialTokens.keys()].some((name) => trimmed.endsWith(name)) ? trimmed.length : text.length;
}

/** The conversation's text up to the end of its last assistant turn, and where in it the turns to be learnt stand. */
function render(
  messages: readonly ChatMessage[],
  template: ChatTemplate,
  tokenizer: TextTokenizer,
  learnt: AssistantTurns,
): { text: string; turns: Turn[] } {
  const answers = messages.flatMap(({ role }, i) => (role === 'assistant' ? [i] : []));
  const last = answers.at(-1) ?? -1;
  const text = template.render(messages.slice(0, last + 1));
  const turns = answers.slice(learnt === 'last' ? -1 : 0).map((i) => {
    const before = template.render(messages.slice(0, i), { addGenerationPrompt: true });
    const after = i === last ? text : template.render(messages.slice(0, i + 1));
    if (!after.startsWith(before) || !text.startsWith(after)) {
      const advice =
        learnt === 'all' && answers.length > 1
          ? 'Learn the last turn alone (assistantTurns: last), or cut conversations to one exchange a row.'
          : 'Turn the rows into {"prompt", "completion"}.';
      throw new TrainerError(
        'chat-template',
        `The model's chat template writes earlier turns differently once later ones follow, so answer ${answers.indexOf(i) + 1} has no fixed place. ${advice}`,
      );
    }
    return { start: before.length, end: Math.max(before.length, endOfTurn(after, tokenizer)) };
  });
  return { text: text.slice(0, turns.at(-1)?.end), turns };
}

/**
 * Tokens of the text, cut at the turns. They are those of the whole text wherever each cut falls between two of its tokens,
 * as it does beside special tokens; else each part is tokenised apart, as prompt and completion are, so that an answer
 * follows exactly the tokens generation would follow.
 */
function tokenize(text: string, turns: readonly Turn[], tokenizer: TextTokenizer): Segment[] {
  const cuts = turns.flatMap(({ start, end }) => [start, end]);
  const whole = tokenizer.encode(text);
  const heads = cuts.map((cut) => tokenizer.encode(text.slice(0, cut)));
  const between = heads.every((head) => head.every((id, t) => id === whole[t]));
  const ends = heads.map((head) => head.length);
  return cuts.map((cut, i) => ({
    ids: between ? whole.slice(ends[i - 1] ?? 0, ends[i]) : tokenizer.encode(text.slice(cuts[i - 1] ?? 0, cut)),
    labelled: i % 2 === 1,
  }));
}

const lengthOf = (segments: readonly Segment[]): number => segments.reduce((sum, { ids }) => sum + ids.length, 0);

/**
 * The conversation up to its last assistant turn in segments, labelled where the assistant speaks: its content and
 * end-of-turn token. Where it is longer than `length` the oldest turns are left out, always a user's message with what
 * follows up to the next one; system messages at the head stay. The last exchange is never left out, so the result may
 * still be too long. Without an assistant turn nothing is labelled. Throws TrainerError 'chat-template'.
 */
export function encodeChat(
  messages: readonly ChatMessage[],
  template: ChatTemplate,
  tokenizer: TextTokenizer,
  { length, turns: learnt }: { readonly length: number; readonly turns: AssistantTurns },
): { segments: Segment[]; shortened: boolean } {
  const last = messages.findLastIndex(({ role }) => role === 'assistant');
  if (last === -1) return { segments: [], shortened: false };
  const head = messages.slice(
    0,
    messages.findIndex(({ role }) => role !== 'system'),
  );
  // Where the conversation could begin: at its head, or at any later message of a user.
  const starts = messages.slice(0, last).flatMap(({ role }, i) => (role === 'user' && i > head.length ? [i] : []));
  let segments: Segment[] = [];
  for (const start of [head.length, ...starts]) {
    const { text, turns } = render([...head, ...messages.slice(start)], template, tokenizer, learnt);
    segments = tokenize(text, turns, tokenizer);
    if (lengthOf(segments) <= length) return { segments, shortened: start > head.length };
  }
  return { segments, shortened: true };
}
