// The page of the last long trials: the table of docs/benchmarks/server/README.md, made from the JSON files beside it. What a figure
// means is prose of the page; only what stands between the two marks is written here.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const BEGIN = '<!-- results: made by `npm run chaos -- report` -->';
const END = '<!-- end of results -->';

const resultSchema = z.object({
  date: z.iso.datetime(),
  commit: z.string(),
  machine: z.object({ processors: z.int(), model: z.string(), node: z.string() }),
  trial: z.string(),
  command: z.string(),
  figures: z.array(z.object({ name: z.string(), measured: z.string(), toReach: z.string(), ok: z.boolean() })),
});

export type StoredResult = z.infer<typeof resultSchema>;

/** The results in a folder, by the name of the trial. Throws where a JSON file is none or names another trial. */
export function readResults(folder: string): StoredResult[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.json'));
  return names.sort().map((name) => {
    const result = resultSchema.parse(JSON.parse(readFileSync(join(folder, name), 'utf8')));
    if (`${result.trial}.json` !== name) throw new Error(`${name} holds the trial "${result.trial}".`);
    return result;
  });
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

/** The tables: one of figures, one of where and when they were measured. */
export function resultsTable(results: readonly StoredResult[]): string {
  if (results.length === 0) return 'No long trial has been written here yet.';
  const figures = results.flatMap(({ trial, figures: each }) =>
    each.map(
      ({ name, measured, toReach, ok }) =>
        `| [${trial}](${trial}.json) | ${cell(name)} | ${cell(measured)} | ${cell(toReach)} | ${ok ? 'reached' : '**missed**'} |`,
    ),
  );
  const runs = results.map(
    ({ trial, command, date, commit, machine }) =>
      `| ${trial} | \`${cell(command)}\` | ${date.slice(0, 10)} | ${commit} | ${machine.processors} × ${cell(machine.model)}, Node ${machine.node} |`,
  );
  return [
    '| trial | figure | measured | to reach | |',
    '|---|---|---|---|---|',
    ...figures,
    '',
    '| trial | command | date | commit | machine |',
    '|---|---|---|---|---|',
    ...runs,
  ].join('\n');
}

/** `page` with its results replaced. Throws where the marks are missing. */
export function withResults(page: string, results: readonly StoredResult[]): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`The page has no place for results: ${BEGIN} … ${END}.`);
  return `${page.slice(0, begin + BEGIN.length)}\n\n${resultsTable(results)}\n\n${page.slice(end)}`;
}

/** Writes the page anew; returns its path. */
export function report(folder: string): string {
  const path = join(folder, 'README.md');
  if (!existsSync(path)) throw new Error(`${path} is missing; --out names the folder of the page.`);
  writeFileSync(path, withResults(readFileSync(path, 'utf8'), readResults(folder)));
  return path;
}
