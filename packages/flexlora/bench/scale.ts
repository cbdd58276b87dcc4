// Many clients: what a thousand of one matrix cost in time and memory, and what ten thousand cost a server.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { LowRank, Term } from '../src/index.ts';
import { manyRanks, sumTerms, termsOf, timed } from './cases.ts';
import { inChild } from './child.ts';
import { megabytes, type Row, seconds } from './rows.ts';

export const MANY_SHAPE = [1536, 576] as const;

/** As a server sorts uploads. */
function byHash(terms: readonly Term[]): Term[] {
  const hashOf = ({ factors }: Term): string => {
    const hash = createHash('sha256');
    if (!('sigma' in factors)) for (const part of [factors.b, factors.a]) hash.update(new Uint8Array(part.buffer));
    return hash.digest('hex');
  };
  const hashed = terms.map((term) => ({ term, hash: hashOf(term) }));
  return hashed.sort((a, b) => (a.hash < b.hash ? -1 : 1)).map(({ term }) => term);
}

function differing(a: LowRank, b: LowRank): number {
  if (a.rank !== b.rank) return a.u.length + a.sigma.length + a.v.length;
  const count = (x: Float64Array, y: Float64Array): number =>
    x.reduce((sum, value, i) => (Object.is(value, y[i]) ? sum : sum + 1), 0);
  return count(a.u, b.u) + count(a.sigma, b.sigma) + count(a.v, b.v);
}

/** A thousand clients of one matrix: the cost of more of them, and of their order, and the memory they take. */
export async function thousand(): Promise<Row[]> {
  const [out, inner] = MANY_SHAPE;
  const keep = 256;
  const ranks = manyRanks();
  const terms = termsOf(out, inner, ranks, 3);
  const points = [250, 500, 1000].map((count) => {
    const part = terms.slice(0, count);
    const width = ranks.slice(0, count).reduce((sum, rank) => sum + rank, 0);
    return { width, ...timed(() => sumTerms(part, keep)) };
  });
  const [first, , last] = points as [(typeof points)[0], (typeof points)[0], (typeof points)[0]];
  // What every sum costs but once, the decomposition, is the same for all.
  const [a, b] = [points[1], last].map((point, i) => {
    const before = points[i] as (typeof points)[0];
    return ((point?.ms ?? 0) - before.ms) / ((point?.width ?? 0) - before.width);
  }) as [number, number];
  const back = sumTerms([...terms].reverse(), keep).value;
  const there = last.result.value;
  const worst = there.sigma.reduce((most, sigma, k) => Math.max(most, Math.abs(sigma - (back.sigma[k] ?? 0))), 0);
  const from = points.map(({ width, ms }) => `Σr ${width}: ${seconds(ms)}`).join(', ');
  const what = `1536 × 576, ${ranks.length} clients of rank 8 to 64`;
  // One after the other: each has the machine to itself.
  const quarter = await inChild(['--drawn', '250']);
  const all = await inChild(['--drawn', '1000']);
  const factors = 4 * (out + inner) * last.width;
  return [
    {
      id: 'thousand/linear',
      what: `${what}: time for one more rank, second half of clients over the second quarter`,
      figure: b / a,
      unit: '×',
      gate: { sense: 'at most', value: 1.3 },
      from,
    },
    {
      id: 'thousand/order',
      what: `${what}: greatest difference of a singular value in reverse order, of σ₁`,
      figure: worst / (there.sigma[0] ?? 1),
      unit: '',
      gate: { sense: 'at most', value: 1e-6 },
      from: `${first.result.value.rank} values`,
    },
    {
      id: 'thousand/sorted',
      what: `${what}: numbers of U, σ and V that differ between the two orders, once sorted by hash`,
      figure: differing(sumTerms(byHash(terms), keep).value, sumTerms(byHash([...terms].reverse()), keep).value),
      unit: '',
      gate: { sense: 'at most', value: 0 },
      from: `rank ${there.rank}, to the last bit`,
    },
    {
      id: 'thousand/memory',
      what: `${what}, merged and held against their mean, each read when it is its turn: peak memory over that of the first 250`,
      figure: all.peakBytes / quarter.peakBytes,
      unit: '×',
      gate: { sense: 'at most', value: 1.3 },
      from: `${megabytes(all.peakBytes)} over ${megabytes(quarter.peakBytes)}, Node included; all factors are ${megabytes(factors)} in float32`,
    },
  ];
}

/** Many clients of few ranks ask a server for their start weights; it reads out of the state once a rank. */
export async function registered(root: string): Promise<Row[]> {
  const [clients, ranks] = [10_000, [8, 30, 64]];
  const program = join(root, 'apps', 'server', 'dist', 'bench-read-outs.js');
  const model = join(root, 'assets', 'models', 'stories260K');
  const { stdout } = await promisify(execFile)(process.execPath, [program, model, String(clients), ranks.join(',')]);
  const { leases, readOuts, ms } = JSON.parse(stdout) as { leases: number; readOuts: number; ms: number };
  return [
    {
      id: 'registered/read-outs',
      what: `${clients} registered clients of ${ranks.length} ranks ask for start weights at once: read-outs`,
      figure: readOuts,
      unit: '',
      gate: { sense: 'at most', value: ranks.length },
      from: `${leases} leases in ${seconds(ms)}, stories260K, by the server’s own lease maker and merge process`,
    },
  ];
}
