// `weft preview`: what a training would learn from a file: the tokens of its first rows, which of them are labelled, and what
// is cut. Needs the model's configuration and tokenizer, and no GPU.
import { encodeRows, packExamples, previewExamples, renderPreview, sequenceFor } from '@weft/trainer';
import { action } from '../command.ts';
import { readModelFolder, readRows } from '../folders.ts';
import { count, DATA_HELP, type DataOptions, dataOptions, encodingOf, formatOf, modelOption } from '../options.ts';
import type { Register } from '../program.ts';
import { rowLimit } from './train/options.ts';

interface PreviewOptions extends DataOptions {
  readonly model: string;
  readonly data: string;
  readonly rows: number;
  readonly seq?: number;
  readonly pack?: boolean;
}

const HELP = `
Labelled text, which the model is trained to write, stands between ⟦ and ⟧, and is green on a terminal with colours.

Examples:
  weft preview --model models/mine --data rows.jsonl
  weft preview --model models/mine --data qa.csv --columns prompt=question,completion=answer --seq 128 --pack`;

export const registerPreview: Register = (program) => {
  const command = program
    .command('preview')
    .description('Show what a training would learn from a file: labelled tokens, truncation, packing.');
  modelOption(command)
    .requiredOption('--data <file>', DATA_HELP)
    .option('--rows <n>', 'examples to show', count('--rows'), 3)
    .option('--seq <n>', 'longest row in tokens (default: as `weft train`)', count('--seq'))
    .option('--pack', 'also show how examples are packed into rows');
  dataOptions(command).addHelpText('after', HELP);
  action<PreviewOptions>(command, async (options, _args, io) => {
    const model = await readModelFolder(options.model, io);
    const limit = rowLimit(options, model.config.maxPositions);
    const encoded = encodeRows(await readRows(options.data, formatOf(options)), model, limit, encodingOf(options));
    const preview = previewExamples(encoded, model.tokenizer, options.rows);
    const packing = options.pack ? packingOf(encoded.examples, limit) : null;
    const examples = preview.examples.map((example) => ({
      ...example,
      spans: example.spans.map((span) => (span.labelled ? { ...span, text: paint(span.text) } : span)),
    }));
    io.result({ ...preview, sequence: limit, ...(packing ? { packing } : {}) }, () =>
      [renderPreview({ ...preview, examples }), ...(packing ? [describePacking(packing)] : [])].join('\n\n'),
    );
  });
};

const coloured = () => process.stdout.isTTY === true && !process.env.NO_COLOR;

/** Green, line by line, so that pagers keep it. */
const paint = (text: string): string => (coloured() ? text.replace(/[^\n]+/g, '\x1b[32m$&\x1b[39m') : text);

interface Packing {
  /** Rows of a batch that hold all examples. */
  readonly rows: number;
  /** Tokens of a row. */
  readonly sequence: number;
  /** Share of the rows' tokens that is no padding. */
  readonly filled: number;
  /** The same with every example in a row of its own. */
  readonly filledUnpacked: number;
  /** Lengths of the examples of each row. */
  readonly lengths: readonly (readonly number[])[];
}

function packingOf(examples: Parameters<typeof packExamples>[0], limit: number): Packing {
  const rows = packExamples(examples, limit);
  const sequence = sequenceFor(rows, limit);
  const tokens = examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
  return {
    rows: rows.length,
    sequence,
    filled: tokens / (rows.length * sequence),
    filledUnpacked: tokens / (examples.length * sequenceFor(examples, limit)),
    lengths: rows.map((row) => row.map(({ inputIds }) => inputIds.length)),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

const describePacking = ({ rows, sequence, filled, filledUnpacked, lengths }: Packing): string =>
  [
    `Packed into ${rows} rows of ${sequence} tokens, ${percent(filled)} of them used (${percent(filledUnpacked)} with an example a row).`,
    ...lengths.slice(0, 3).map((row, i) => `Row ${i + 1}: examples of ${row.join(' + ')} tokens`),
  ].join('\n');
