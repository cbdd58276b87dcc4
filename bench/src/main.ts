// `npm run bench`: runs the suite in this process or in a browser, judges it, prints the table and writes the results.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { chartsOf } from './charts.ts';
import { brokenExplanations, EXPLAINED, explainBy } from './explained.ts';
import { exitCodeOf, rowsOf, summarise } from './gates.ts';
import { messageOf } from './measure.ts';
import { prepareNode } from './node.ts';
import { runInChromium } from './page/serve.ts';
import { adapterName, fileStem, markdownPage, type Provenance, type Report, summaryLine, textTable } from './report.ts';
import type { SuiteOptions, SuiteResult } from './result.ts';

const folder = dirname(fileURLToPath(import.meta.url));
const root = resolve(folder, '..', '..');
const say = (text: string) => void process.stderr.write(`${text}\n`);

/** Nothing new begins after these; what is running ends. */
const DEADLINE_SECONDS = { quick: 4 * 60, full: 22 * 60 };

interface Given {
  readonly quick: boolean;
  readonly browser: boolean;
  readonly json: boolean;
  readonly only: readonly string[];
  readonly out?: string;
  readonly from?: string;
}

function parse(): Given {
  const name = (value: string, before: readonly string[]): string[] => {
    if (value.trim() === '')
      throw new InvalidArgumentError('Give part of a measurement’s name, such as matmul or step-s15.');
    return [...before, value];
  };
  return new Command('npm run bench --')
    .description('Measures kernels and the whole training step beside other libraries on one GPU adapter.')
    .option('--quick', 'fewer rows and samples, at most five minutes instead of 25', false)
    .option('--browser', 'in a headless Chromium instead of Node', false)
    .option('--json', 'one JSON document on stdout', false)
    .option('--only <name>', 'only measurements whose name contains this; may be given again', name, [] as string[])
    .option('--out <dir>', 'where results go: docs/benchmarks for a whole run, .weft/bench for a quick or partial one')
    .option('--from <file>', 'judge and write the JSON of an earlier run again, and measure nothing')
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
    .parse()
    .opts<Given>();
}

function git(...args: string[]): string | null {
  try {
    return execFileSync('git', args, { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim();
  } catch {
    return null; // no checkout, or no git: the result then names no commit
  }
}

function commit(): string | null {
  const hash = git('rev-parse', '--short=12', 'HEAD');
  return hash && (git('status', '--porcelain', '--untracked-files=no', '--', '.', ':!docs') ? `${hash}-dirty` : hash);
}

/** As it was asked for, without where results went. */
function commandOf({ quick, browser, only }: Given): string {
  const options = [quick ? '--quick' : '', browser ? '--browser' : '', ...only.map((name) => `--only ${name}`)];
  const given = options.filter(Boolean).join(' ');
  return given ? `npm run bench -- ${given}` : 'npm run bench';
}

async function runHere(options: SuiteOptions): Promise<SuiteResult> {
  const entry = prepareNode();
  // After it: the peers look for navigator.gpu when they are imported.
  const { runSuite } = await import('./suite.ts');
  return await runSuite(entry, options, say);
}

function write(report: Report, out: string): string {
  const stem = fileStem(report.result, report.host);
  mkdirSync(out, { recursive: true });
  const charts = chartsOf(report).map(({ suffix, title, svg }) => ({ file: `${stem}-${suffix}.svg`, title, svg }));
  for (const { file, svg } of charts) writeFileSync(join(out, file), svg);
  writeFileSync(join(out, `${stem}.json`), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(out, `${stem}.md`), markdownPage(report, charts));
  return join(out, `${stem}.md`);
}

type Run = Provenance & Pick<Report, 'mode' | 'result'>;

/** Measures what was asked for; null where no name fits. */
async function measured(given: Given): Promise<Run | null> {
  const { quick, browser, only } = given;
  const options = { quick, only, deadlineSeconds: quick ? DEADLINE_SECONDS.quick : DEADLINE_SECONDS.full };
  const date = new Date().toISOString();
  const { result, version } = browser
    ? await runInChromium(folder, options, say)
    : { result: await runHere(options), version: process.versions.node };
  if (result.measurements.length === 0) {
    say(
      `Nothing was measured: no name contains ${only.join(' or ')}. Names begin with matmul, step, first-step, s15, lora, weights, attention, norm, swiglu, cross-entropy, adamw, decode.`,
    );
    return null;
  }
  return {
    date,
    command: commandOf(given),
    commit: commit(),
    host: { kind: browser ? 'chromium' : 'node', version },
    platform: `${process.platform} ${process.arch}`,
    processor: cpus()[0]?.model.trim() ?? 'unknown processor',
    processors: availableParallelism(),
    mode: quick ? 'quick' : 'full',
    result,
  };
}

const fromCaller = (path: string): string => resolve(process.env.INIT_CWD ?? process.cwd(), path);

/** The run that a file of results tells of. Throws Error when it is none. */
function earlier(file: string): Run {
  const { bench, name: _, rows: __, summary: ___, ...run }: Report = JSON.parse(readFileSync(fromCaller(file), 'utf8'));
  if (bench !== 'weft') throw new Error(`${file} holds no results of npm run bench.`);
  return run;
}

async function main(): Promise<number> {
  const given = parse();
  const { json } = given;
  const broken = brokenExplanations(EXPLAINED, join(root, 'docs', 'benchmarks'));
  for (const line of broken) say(`An explanation leads nowhere: ${line}`);
  const run = given.from === undefined ? await measured(given) : earlier(given.from);
  if (!run) return 2;
  const valid = EXPLAINED.filter((each) => brokenExplanations([each], join(root, 'docs', 'benchmarks')).length === 0);
  const rows = rowsOf(run.result, explainBy(valid));
  const summary = summarise(rows);
  const report: Report = { bench: 'weft', name: adapterName(run.result), ...run, rows, summary };
  const partial = run.mode === 'quick' || run.command.includes('--only');
  const fallback = partial ? join(root, '.weft', 'bench') : join(root, 'docs', 'benchmarks');
  const page = write(report, given.out ? fromCaller(given.out) : fallback);
  if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else process.stdout.write(`\n${report.name}\n\n${textTable(rows)}\n\n${summaryLine(summary)}\n`);
  say(`Written to ${page}`);
  return broken.length > 0 ? 1 : exitCodeOf(summary);
}

try {
  process.exitCode = await main();
} catch (error) {
  say(`The bench failed: ${messageOf(error)}`);
  if (process.env.WEFT_DEBUG && error instanceof Error) say(error.stack ?? '');
  process.exitCode = 1;
}
// Devices of the peers, which cannot be closed, would keep the process.
process.stdout.write('', () => process.exit());
