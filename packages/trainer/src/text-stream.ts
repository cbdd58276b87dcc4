// Generated tokens to text as they come, and when to stop. Never shows part of a character, nor any of a stop string.
import type { TextTokenizer } from './model/tokenizer.ts';

export interface StopRules {
  /** Tokens that end the text and are not part of it. */
  readonly tokens?: readonly number[] | undefined;
  /** Strings that end the text and are not part of it, wherever tokens divide them. */
  readonly strings?: readonly string[] | undefined;
}

/** What a decoder writes for bytes that are no character, or not yet one. */
const INCOMPLETE = '\uFFFD';

/** Length of the longest end of `text` that begins a stop string but is not the whole of it. */
function heldBack(text: string, stops: readonly string[]): number {
  const longest = stops.reduce((length, stop) => Math.max(length, stop.length - 1), 0);
  for (let length = Math.min(longest, text.length); length > 0; length -= 1)
    if (stops.some((stop) => stop.length > length && stop.startsWith(text.slice(-length)))) return length;
  return 0;
}

/**
 * What {@link push} and {@link finish} return, joined, is the text of all tokens up to a stop. Characters that took several
 * tokens come with their last one; one that is cut off by the end does not come at all.
 */
export class TextStream {
  readonly #tokenizer: Pick<TextTokenizer, 'decode'>;
  readonly #stops: { tokens: ReadonlySet<number>; strings: readonly string[] };
  /** Tokens whose text is out already, kept because a word's leading space depends on what stands before it. */
  #context: readonly number[];
  /** Tokens after the context whose text is not out yet. */
  #pending: number[] = [];
  /** Text that may turn out to begin a stop string. */
  #held = '';
  #stopped: 'token' | 'string' | null = null;

  /** `after`: tokens the text continues, such as a prompt's, so that the first word keeps its leading space. */
  constructor(
    tokenizer: Pick<TextTokenizer, 'decode'>,
    { tokens = [], strings = [] }: StopRules = {},
    after: readonly number[] = [],
  ) {
    this.#tokenizer = tokenizer;
    this.#stops = { tokens: new Set(tokens), strings: strings.filter((stop) => stop !== '') };
    this.#context = after.slice(-8);
  }

  /** What ended the text; null while it goes on. */
  get stopped(): 'token' | 'string' | null {
    return this.#stopped;
  }

  /** Text that is certain now that `id` has come; nothing once stopped. */
  push(id: number): string {
    if (this.#stopped) return '';
    if (this.#stops.tokens.has(id)) {
      const rest = this.finish();
      this.#stopped ??= 'token';
      return rest;
    }
    this.#pending.push(id);
    const text = this.#decodePending();
    if (text.endsWith(INCOMPLETE)) return '';
    // Tokens without text of their own, such as special ones, leave what stood before them in sight.
    this.#context = text === '' ? [...this.#context, ...this.#pending] : this.#pending;
    this.#pending = [];
    return this.#emit(text);
  }

  /** The rest, when no more tokens come. */
  finish(): string {
    if (this.#stopped) return '';
    const text = this.#decodePending();
    this.#pending = [];
    const sure = this.#emit(text.replace(/\uFFFD+$/, ''));
    if (this.#stopped) return sure;
    const rest = this.#held;
    this.#held = '';
    return sure + rest;
  }

  #decodePending(): string {
    const before = this.#tokenizer.decode(this.#context);
    return this.#tokenizer.decode([...this.#context, ...this.#pending]).slice(before.length);
  }

  /** Passes on what cannot belong to a stop string any more. */
  #emit(text: string): string {
    const open = this.#held + text;
    const ends = this.#stops.strings.map((stop) => open.indexOf(stop)).filter((index) => index >= 0);
    if (ends.length > 0) {
      this.#stopped = 'string';
      this.#held = '';
      return open.slice(0, Math.min(...ends));
    }
    const sure = open.length - heldBack(open, this.#stops.strings);
    this.#held = open.slice(sure);
    return open.slice(0, sure);
  }
}
