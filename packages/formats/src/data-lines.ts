// Rows as JSON lines. A bad line is named by its number; nothing is skipped silently.
import { type DataRow, parseRow } from './data-rows.ts';
import { FormatError } from './errors.ts';

const EXPECTED =
  'Each line is {"prompt": …, "completion": …}, {"messages": [{"role": …, "content": …}, …]}, ' +
  '{"instruction": …, "input": …, "output": …}, {"text": …} or {"input_ids": […], "labels": […]}.';

/** The keys a row takes from other keys: `columns` is {field: key}. */
function renamed(value: unknown, columns: Readonly<Record<string, string>>, fail: (what: string) => never): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const entries = new Map(Object.entries(value));
  return Object.fromEntries(
    Object.entries(columns).map(([field, key]) => [
      field,
      entries.has(key) ? entries.get(key) : fail(`has no "${key}" to take as ${field}`),
    ]),
  );
}

/**
 * Rows of a JSONL text, of any kind of DataRow: `{"prompt", "completion"}`, `{"messages"}`, `{"instruction", "input", "output"}`,
 * `{"text"}` or `{"input_ids", "labels"}`. Blank lines are allowed. With `columns`, {field: key}, a row is made of just these.
 * Throws FormatError 'data-line' naming file and line, 'data-empty' when there is no row.
 */
export function parseDataLines(text: string, file = 'the data', columns?: Readonly<Record<string, string>>): DataRow[] {
  const rows: DataRow[] = [];
  // Some editors begin a file with a byte order mark.
  for (const [i, line] of text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .entries()) {
    if (line.trim() === '') continue;
    const fail = (what: string, cause?: unknown): never => {
      throw new FormatError('data-line', `Line ${i + 1} of ${file}: ${what}. ${EXPECTED}`, { cause });
    };
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      fail(line.startsWith('[') ? 'begins a list; write its rows one a line' : 'is not JSON', cause);
    }
    rows.push(parseRow(columns ? renamed(value, columns, fail) : value, fail));
  }
  if (rows.length === 0) throw new FormatError('data-empty', `There is no row in ${file}.`);
  return rows;
}
