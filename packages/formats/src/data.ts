// Rows from the text of a file: JSON lines, a table, or plain text, told apart by the file's ending.
import { parseCsv } from './data-csv.ts';
import { parseDataLines } from './data-lines.ts';
import type { DataRow } from './data-rows.ts';
import { FormatError } from './errors.ts';

export interface DataFormat {
  /** By the file's ending when left out: .csv and .tsv; .txt and .md; anything else is JSON lines. */
  readonly format?: 'jsonl' | 'csv' | 'text';
  /** Which column (or key of a JSON line) is which field, e.g. {prompt: 'question', completion: 'answer'}. */
  readonly columns?: Readonly<Record<string, string>>;
}

function formatOf(file: string): 'jsonl' | 'csv' | 'text' {
  if (/\.(csv|tsv)$/i.test(file)) return 'csv';
  return /\.(txt|md)$/i.test(file) ? 'text' : 'jsonl';
}

/** A plain text is one row, which the trainer cuts into windows. */
function parseText(text: string, file: string, columns: DataFormat['columns']): DataRow[] {
  if (columns) throw new FormatError('data-columns', `${file} is plain text, which has no columns.`);
  const plain = text.replace(/^\uFEFF/, '');
  if (plain.trim() === '') throw new FormatError('data-empty', `There is no text in ${file}.`);
  return [{ kind: 'plain', text: plain }];
}

/**
 * The rows of a file of this name. Throws FormatError 'data-line' naming the line (JSON lines) or row (table), 'data-columns' naming
 * what is missing, 'data-empty' when there is no row.
 */
export function parseData(
  text: string,
  file: string,
  { format = formatOf(file), columns }: DataFormat = {},
): DataRow[] {
  if (format === 'text') return parseText(text, file, columns);
  return format === 'csv' ? parseCsv(text, file, columns) : parseDataLines(text, file, columns);
}
