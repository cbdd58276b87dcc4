// What a trial measured, beside what it was to reach: printed as it is found out, written as JSON for docs/benchmarks/server.
// Knows no trial by name.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';

export interface Figure {
  readonly name: string;
  /** With its unit, as people read it. */
  readonly measured: string;
  readonly toReach: string;
  readonly ok: boolean;
}

export interface TrialResult {
  readonly trial: string;
  /** The command that was run. */
  readonly command: string;
  readonly figures: readonly Figure[];
  /** Anything else worth keeping: settings, percentiles, memory over time. */
  readonly detail: Readonly<Record<string, unknown>>;
}

export type Trial<Options> = (options: Options, say: (line: string) => void) => Promise<TrialResult>;

export const passed = (result: TrialResult): boolean => result.figures.every(({ ok }) => ok);

/** One line a figure: `ok    acknowledgement p99   12.3 ms   (≤ 25 ms)`. */
export function tableOf({ figures }: TrialResult): string {
  const width = (pick: (figure: Figure) => string) => Math.max(0, ...figures.map((figure) => pick(figure).length));
  const names = width(({ name }) => name);
  const values = width(({ measured }) => measured);
  return figures
    .map(
      ({ name, measured, toReach, ok }) =>
        `${ok ? 'ok  ' : 'MISS'}  ${name.padEnd(names)}  ${measured.padStart(values)}  (${toReach})`,
    )
    .join('\n');
}

/** Writes `<trial>.json` into `folder`, with date, commit and machine, so that a later reader knows what was measured. */
export function writeResult(folder: string, result: TrialResult): string {
  const path = join(folder, `${result.trial}.json`);
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
  const processors = cpus();
  const machine = { processors: processors.length, model: processors[0]?.model ?? 'unknown', node: process.version };
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, `${JSON.stringify({ date: new Date().toISOString(), commit, machine, ...result }, null, 2)}\n`);
  return path;
}

/** A count that is to reach another. */
export const atLeast = (name: string, measured: number, wanted: number): Figure => ({
  name,
  measured: measured.toLocaleString('en-US'),
  toReach: `≥ ${wanted.toLocaleString('en-US')}`,
  ok: measured >= wanted,
});
