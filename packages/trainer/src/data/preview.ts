// What a trainer is about to learn, for a reader: tokens by their text, and which of them are labelled. Data and plain text;
// a command or page prints it.
import { IGNORED_LABEL } from '@weft/formats';
import type { TextTokenizer } from '../model/tokenizer.ts';
import type { Example, Examples } from './examples.ts';

export interface PreviewToken {
  /** Its text as the tokenizer spells it; its number where there is no tokenizer. */
  readonly token: string;
  readonly id: number;
  /** Whether the model is trained to predict this token. Never the first: nothing stands before it. */
  readonly labelled: boolean;
}

/** Neighbouring tokens of one kind as one text. */
export interface PreviewSpan {
  readonly text: string;
  readonly labelled: boolean;
}

export interface ExamplePreview {
  readonly tokens: readonly PreviewToken[];
  readonly spans: readonly PreviewSpan[];
  readonly length: number;
  /** Labelled targets. */
  readonly targets: number;
}

export interface Preview {
  readonly examples: readonly ExamplePreview[];
  /** Counts over all examples, not only those shown. */
  readonly total: number;
  readonly tokens: number;
  readonly targets: number;
  readonly longest: number;
  readonly truncated: number;
  readonly unlabelled: number;
}

export function previewExample(example: Example, tokenizer: TextTokenizer | null): ExamplePreview {
  const { inputIds, labels, targets } = example;
  const names = tokenizer ? tokenizer.pieces(inputIds) : inputIds.map(String);
  const tokens = inputIds.map((id, t) => ({
    token: names[t] ?? String(id),
    id,
    labelled: t > 0 && labels[t] !== IGNORED_LABEL,
  }));
  // Spans are decoded as a whole: characters may take several tokens.
  const runs: { ids: number[]; labelled: boolean }[] = [];
  for (const { id, labelled } of tokens) {
    const run = runs.at(-1);
    if (run?.labelled === labelled) run.ids.push(id);
    else runs.push({ ids: [id], labelled });
  }
  const textOf = (ids: readonly number[]) => (tokenizer ? tokenizer.decodeWithin(ids) : ids.join(' '));
  const spans = runs.map(({ ids, labelled }) => ({ text: textOf(ids), labelled }));
  return { tokens, spans, length: inputIds.length, targets };
}

/** The first `count` examples, with counts over all. */
export function previewExamples(encoded: Examples, tokenizer: TextTokenizer | null, count: number): Preview {
  const { examples, truncated, unlabelled } = encoded;
  const sum = (of: (example: Example) => number) => examples.reduce((total, example) => total + of(example), 0);
  return {
    examples: examples.slice(0, count).map((example) => previewExample(example, tokenizer)),
    total: examples.length,
    tokens: sum(({ inputIds }) => inputIds.length),
    targets: sum(({ targets }) => targets),
    longest: examples.reduce((most, { inputIds }) => Math.max(most, inputIds.length), 0),
    truncated,
    unlabelled,
  };
}

/** Labelled text stands between ⟦ and ⟧, so that no reader needs colour. */
export function renderPreview(preview: Preview): string {
  const { examples, total, tokens, targets, longest, truncated, unlabelled } = preview;
  const blocks = examples.map(({ spans, length, targets: labelled }, i) => {
    const text = spans.map((span) => (span.labelled ? `⟦${span.text}⟧` : span.text)).join('');
    return `Example ${i + 1}: ${length} tokens, ${labelled} labelled\n${text}`;
  });
  const counts = [
    `${examples.length} of ${total} examples shown; text between ⟦ and ⟧ is learnt.`,
    `${tokens} tokens, ${targets} of them labelled; the longest example has ${longest}.`,
    `${truncated} rows cut to the sequence length, ${unlabelled} left out with nothing labelled.`,
  ];
  return [...blocks, counts.join('\n')].join('\n\n');
}
