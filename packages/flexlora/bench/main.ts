// `npm run bench -w packages/flexlora`: sums of updates beside NumPy with OpenBLAS, judged and written down.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Term } from '../src/index.ts';
import { COHORT, keptRank, median, mergeDrawn, mergePart, SMOLLM2, sumTerms, termsOf, timed } from './cases.ts';
import { inChild, type PartResult, peakBytes } from './child.ts';
import { INSTALL, Numpy } from './numpy.ts';
import { figureOf, gateOf, meets, megabytes, type Row, seconds } from './rows.ts';
import { MANY_SHAPE, registered, thousand } from './scale.ts';

const THREADS = 2;
const root = resolve(import.meta.dirname, '..', '..', '..');
const say = (text: string) => void process.stderr.write(`${text}\n`);

const HELP = `Usage: npm run bench -w packages/flexlora -- [options]

Times merges beside NumPy with OpenBLAS on two threads, in one run. Exits 0 when every gate is met, 1 when one is not, 2 on
bad usage or without NumPy.

  --only NAME   cases whose name contains it: few, many, model, thousand, registered
  --json        one JSON document on stdout
  --out DIR     where results go; docs/benchmarks unless --only is given
  --help        this text`;

/** Factors as NumPy reads them. */
function writeClients(file: string, terms: readonly Term[]): void {
  const parts = terms.flatMap(({ factors }) => ('sigma' in factors ? [] : [factors.b, factors.a]));
  writeFileSync(file, Buffer.concat(parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength))));
}

/** One matrix of 2048 × 2048 against both ways of NumPy, in turns. */
async function oneMatrix(
  numpy: Numpy,
  folder: string,
  { id, ranks, keep, warmUp, samples }: { id: string; ranks: number[]; keep: number; warmUp: number; samples: number },
  gates: { dense: number; stacked: number },
): Promise<Row[]> {
  const [out, inner] = [2048, 2048];
  const terms = termsOf(out, inner, ranks, 1);
  const file = join(folder, `${id}.f32`);
  writeClients(file, terms);
  await numpy.ask({ op: 'clients', file, out, in: inner, ranks });
  const times = { ours: [] as number[], stacked: [] as number[], dense: [] as number[] };
  // An engine compiles what runs often, after some runs; a server merges hundreds of matrices.
  for (let run = 0; run < warmUp; run += 1) sumTerms(terms, keep);
  let worst = 0;
  for (let sample = 0; sample <= samples; sample += 1) {
    const ours = timed(() => sumTerms(terms, keep));
    const stacked = await numpy.ask<{ ms: number; sigma: number[] }>({ op: 'stacked', keep });
    for (const [k, sigma] of ours.result.value.sigma.entries())
      worst = Math.max(worst, Math.abs(sigma - (stacked.sigma[k] ?? 0)) / (stacked.sigma[0] ?? 1));
    // The first of each compiles and touches memory.
    if (sample === 0) continue;
    times.ours.push(ours.ms);
    times.stacked.push(stacked.ms);
    if (sample <= 2) times.dense.push((await numpy.ask<{ ms: number }>({ op: 'dense', keep })).ms);
  }
  const [ours, stacked, dense] = [median(times.ours), median(times.stacked), median(times.dense)];
  const total = ranks.reduce((sum, rank) => sum + rank, 0);
  const from = `weft ${seconds(ours)}, NumPy stacked ${seconds(stacked)}, dense ${seconds(dense)}`;
  const what = `2048 × 2048, ${ranks.length} clients of rank ${ranks[0]} (Σr ${total})`;
  return [
    {
      id: `${id}/dense`,
      what: `${what}: NumPy’s dense form over ours`,
      figure: dense / ours,
      unit: '×',
      gate: { sense: 'at least', value: gates.dense },
      from,
    },
    {
      id: `${id}/stacked`,
      what: `${what}: ours over NumPy’s stacked QR`,
      figure: ours / stacked,
      unit: '×',
      gate: { sense: 'at most', value: gates.stacked },
      from,
    },
    {
      id: `${id}/sigma`,
      what: `${what}: greatest difference of a singular value, of σ₁`,
      figure: worst,
      unit: '',
      gate: { sense: 'at most', value: 1e-12 },
      from: `${keep} values`,
    },
  ];
}

/** A whole model over processes of our own. */
async function wholeModel(numpy: Numpy): Promise<Row[]> {
  const parts = availableParallelism();
  let done = 0;
  const results = await Promise.all(
    Array.from({ length: parts }, (_, part) =>
      inChild(['--part', String(part), '--parts', String(parts)], () => {
        if (++done % 30 === 0) say(`  model: ${done} of ${SMOLLM2.length} matrices`);
      }),
    ),
  );
  const ours = Math.max(...results.map(({ ms }) => ms));
  const peak = results.reduce((sum, { peakBytes }) => sum + peakBytes, 0);
  const theirs = await numpy.ask<{ ms: number; routes: string[] }>({
    op: 'model',
    shapes: SMOLLM2,
    ranks: COHORT,
    keep: keptRank(576, 1536),
  });
  const what = `SmolLM2-135M, ${SMOLLM2.length} matrices, ${COHORT.length} clients at 80/5/5/10 % of ranks 8/30/64/128`;
  const from = `weft ${seconds(ours)} in ${parts} processes, NumPy ${seconds(theirs.ms)} (${theirs.routes.join(', ')})`;
  return [
    {
      id: 'model/time',
      what: `${what}: ours over NumPy’s best`,
      figure: ours / theirs.ms,
      unit: '×',
      gate: { sense: 'at most', value: 4 },
      from,
    },
    {
      id: 'model/memory',
      what: `${what}: peak memory, all processes`,
      figure: peak / 1e6,
      unit: 'MB',
      gate: { sense: 'at most', value: 1000 },
      from: results.map(({ peakBytes }) => megabytes(peakBytes)).join(' + '),
    },
  ];
}

function commit(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync('git', args, { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] })
        .toString()
        .trim();
    const dirty = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':!docs');
    return `${git('rev-parse', '--short=12', 'HEAD')}${dirty ? '-dirty' : ''}`;
  } catch {
    return 'outside a checkout';
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
      part: { type: 'string' },
      parts: { type: 'string' },
      drawn: { type: 'string' },
    },
  });
  if (values.help) {
    process.stdout.write(`${HELP}\n`);
    return 0;
  }
  if (values.part !== undefined) {
    const ms = mergePart(Number(values.part), Number(values.parts), () => process.send?.('done'));
    process.send?.({ ms, peakBytes: peakBytes() } satisfies PartResult);
    return 0;
  }
  if (values.drawn !== undefined) {
    const { ms } = timed(() => mergeDrawn(Number(values.drawn), ...MANY_SHAPE));
    process.send?.({ ms, peakBytes: peakBytes() } satisfies PartResult);
    return 0;
  }
  const wanted = (name: string): boolean => values.only.length === 0 || values.only.some((part) => name.includes(part));
  const started = await Numpy.start(THREADS);
  if (!started) {
    say(`flexlora bench: ${INSTALL}`);
    return 2;
  }
  const { numpy, about } = started;
  const folder = mkdtempSync(join(tmpdir(), 'weft-flexlora-bench-'));
  const rows: Row[] = [];
  const run = async (name: string, work: () => Promise<Row[]> | Row[]): Promise<void> => {
    if (!wanted(name)) return;
    say(`${name} …`);
    rows.push(...(await work()));
  };
  try {
    const ranks = (count: number) => Array.from({ length: count }, () => 8);
    await run('few', () =>
      oneMatrix(
        numpy,
        folder,
        { id: 'few', ranks: ranks(10), keep: 32, warmUp: 12, samples: 15 },
        { dense: 60, stacked: 2.5 },
      ),
    );
    await run('many', () =>
      oneMatrix(
        numpy,
        folder,
        { id: 'many', ranks: ranks(100), keep: 32, warmUp: 1, samples: 5 },
        { dense: 2, stacked: 5 },
      ),
    );
    await run('thousand', thousand);
    await run('registered', () => registered(root));
    await run('model', () => wholeModel(numpy));
  } finally {
    numpy.close();
    rmSync(folder, { recursive: true, force: true });
  }
  if (rows.length === 0) {
    say(
      `Nothing was measured: no case contains ${values.only.join(' or ')}. Cases: few, many, thousand, registered, model.`,
    );
    return 2;
  }
  const missed = rows.filter((row) => !meets(row));
  const about_ = {
    date: new Date().toISOString(),
    commit: commit(),
    machine: `Node ${process.versions.node}, ${availableParallelism()} × ${cpus()[0]?.model.trim() ?? 'unknown processor'}`,
    peer: `NumPy ${about.numpy}, OpenBLAS on ${about.threads} threads`,
  };
  const document = { bench: 'flexlora', ...about_, rows: rows.map((row) => ({ ...row, met: meets(row) })) };
  const table = rows.map(
    (row) =>
      `| ${row.what} | ${figureOf(row)} | ${gateOf(row)} | ${row.gate ? (meets(row) ? 'met' : 'missed') : ''} | ${row.from} |`,
  );
  const page = `# Merging, beside NumPy

\`npm run bench -w packages/flexlora\`, ${about_.date.slice(0, 10)}, commit ${about_.commit}; ${about_.machine}; ${about_.peer}. Both compute in
float64 from the same float32 factors, in turns; medians, the smallest case after twelve runs in which
the engine compiles (the first takes some 100 ms). Ours runs on one thread, the whole model in as many processes as there are cores.

| what | figure | gate | | from |
|---|---|---|---|---|
${table.join('\n')}
`;
  const out =
    values.out ?? (values.only.length === 0 ? join(root, 'docs', 'benchmarks') : join(root, '.weft', 'bench'));
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, 'flexlora.json'), `${JSON.stringify(document, null, 2)}\n`);
  writeFileSync(join(out, 'flexlora.md'), page);
  process.stdout.write(values.json ? `${JSON.stringify(document, null, 2)}\n` : page);
  say(`${rows.length - missed.length} met, ${missed.length} missed. Written to ${join(out, 'flexlora.md')}`);
  return missed.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  say(`The bench failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = error instanceof TypeError && 'code' in error ? 2 : 1;
}
