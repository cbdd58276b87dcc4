// Rows as a table with a header: comma-, tab-, semicolon- or bar-separated. Columns are taken by the names of a row's fields, or by
// a mapping. Papa Parse reads the quoting; which columns there must be, and what a row is, is decided here.
import Papa from 'papaparse';
import { type DataRow, parseRow, TEXT_KINDS } from './data-rows.ts';
import { FormatError } from './errors.ts';

/** Comma first: a header of one column has none of them. */
const DELIMITERS = [',', '\t', ';', '|'];

/** Throws FormatError 'data-columns' for a field that does not exist, or fields that make no row. */
function checkMapping(mapping: Readonly<Record<string, string>>): void {
  const given = Object.keys(mapping);
  const known = TEXT_KINDS.flatMap(({ required, optional }) => [...required, ...optional]);
  const stray = given.find((field) => !known.includes(field));
  if (stray !== undefined)
    throw new FormatError('data-columns', `There is no field "${stray}"; map columns to ${known.join(', ')}.`);
  if (TEXT_KINDS.some(({ required }) => required.every((field) => given.includes(field)))) return;
  const choices = TEXT_KINDS.map(({ required }) => required.join(' and ')).join(', or ');
  throw new FormatError('data-columns', `${given.join(', ') || 'No field'} makes no row; map ${choices}.`);
}

/** Which column to take for which field: as told, or by the names of the first kind of row the header has whole. */
function columnsByField(
  header: readonly string[],
  mapping: Readonly<Record<string, string>> | undefined,
): (readonly [field: string, column: string])[] {
  if (mapping) return Object.entries(mapping);
  const lacking = ({ required }: (typeof TEXT_KINDS)[number]) => required.filter((field) => !header.includes(field));
  const kind =
    TEXT_KINDS.find((candidate) => lacking(candidate).length === 0) ??
    TEXT_KINDS.find((candidate) => lacking(candidate).length < candidate.required.length) ??
    TEXT_KINDS[0];
  if (!kind) return [];
  const fields = [...kind.required, ...kind.optional.filter((field) => header.includes(field))];
  return fields.map((field) => [field, field]);
}

/**
 * Rows of a table whose first line names its columns. `mapping` is {field: column}, such as {prompt: 'question', completion:
 * 'answer'}; without it the columns are called as the fields of a row: prompt and completion, instruction, input and output, or
 * text. Other columns are let be. Throws FormatError 'data-columns' naming the missing columns, 'data-line' naming the row, the
 * first after the header being 1, and 'data-empty'.
 */
export function parseCsv(text: string, file: string, mapping?: Readonly<Record<string, string>>): DataRow[] {
  if (text.trim() === '') throw new FormatError('data-empty', `There is no row in ${file}.`);
  if (mapping) checkMapping(mapping);
  const readHeader = (delimiter: string) => {
    const names = Papa.parse<string[]>(text, { delimiter, preview: 1 }).data[0] ?? [];
    const header = names.map((name) => name.trim());
    const columns = columnsByField(header, mapping);
    return { delimiter, header, columns, missing: columns.filter(([, column]) => !header.includes(column)) };
  };
  const candidates = DELIMITERS.map(readHeader);
  const { delimiter, header, columns, missing } =
    candidates.find((candidate) => candidate.missing.length === 0) ?? readHeader(',');
  const quoted = (names: readonly string[]): string => names.map((name) => `"${name}"`).join(', ');
  if (missing.length > 0) {
    throw new FormatError(
      'data-columns',
      `${file} has no column ${quoted(missing.map(([, column]) => column))}; its first line names ${quoted(header)}. ` +
        'Rename its columns, or say which column is which field.',
    );
  }
  const twice = columns.find(([, column]) => header.indexOf(column) !== header.lastIndexOf(column));
  if (twice) throw new FormatError('data-columns', `${file} has two columns "${twice[1]}"; rename one of them.`);

  const { data, errors } = Papa.parse<string[]>(text, { delimiter });
  const failAt = (row: number, what: string, cause?: unknown): never => {
    throw new FormatError('data-line', `${row === 0 ? 'The header' : `Row ${row}`} of ${file}: ${what}.`, { cause });
  };
  const [error] = errors;
  if (error) failAt(error.row ?? 0, `${error.message}; a quote inside a quoted value is written twice`, error);
  const rows: DataRow[] = [];
  for (const [row, values] of data.entries()) {
    const isBlank = values.length === 1 && values[0]?.trim() === '';
    if (row === 0 || isBlank) continue;
    const fail = (what: string, cause?: unknown): never => failAt(row, what, cause);
    if (values.length !== header.length)
      fail(`has ${values.length} values where the header names ${header.length} columns`);
    const fields = columns.map(([field, column]) => [field, values[header.indexOf(column)]] as const);
    rows.push(parseRow(Object.fromEntries(fields), fail));
  }
  if (rows.length === 0) throw new FormatError('data-empty', `There is no row in ${file}.`);
  return rows;
}
