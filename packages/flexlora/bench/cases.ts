// What is measured: sums of updates of random factors, at the sizes of real models and cohorts.
import { agreementOf, type Factors, flexlora, sumOfProducts, type Term, UpdateSum } from '../src/index.ts';

/** Uniform in [−0.5, 0.5), fast rather than good: what is timed is not this. */
export function uniform(seed: number): () => number {
  let state = (seed + 1) * 0x9e3779b9;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32 - 0.5;
  };
}

export function drawFactors(out: number, inner: number, rank: number, draw: () => number): Factors {
  const a = new Float32Array(rank * inner);
  const b = new Float32Array(out * rank);
  for (let i = 0; i < b.length; i += 1) b[i] = draw();
  for (let i = 0; i < a.length; i += 1) a[i] = draw();
  return { out, in: inner, rank, scale: 1, a, b };
}

export const termsOf = (out: number, inner: number, ranks: readonly number[], seed: number): Term[] => {
  const draw = uniform(seed);
  return ranks.map((rank) => ({ weight: 1, factors: drawFactors(out, inner, rank, draw) }));
};

export function timed<Result>(work: () => Result): { ms: number; result: Result } {
  const began = performance.now();
  const result = work();
  return { ms: performance.now() - began, result };
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
};

/** The matrices of SmolLM2-135M: 30 layers of q, k, v, o, gate, up and down. */
export const SMOLLM2: readonly (readonly [out: number, inner: number])[] = Array.from({ length: 30 }, () => [
  [576, 576] as const,
  [192, 576] as const,
  [192, 576] as const,
  [576, 576] as const,
  [1536, 576] as const,
  [1536, 576] as const,
  [576, 1536] as const,
]).flat();

/** The cohort of the paper's heavy-tail setting: 80, 5, 5 and 10 % of 80 clients. */
export const COHORT: readonly number[] = [
  ...Array.from({ length: 64 }, () => 8),
  ...Array.from({ length: 4 }, () => 30),
  ...Array.from({ length: 4 }, () => 64),
  ...Array.from({ length: 8 }, () => 128),
];

/** Rank a state is kept at for clients of rank 128, by matrix. */
export const keptRank = (out: number, inner: number): number => Math.min(out, inner, 4 * 128);

/** Merges every `parts`-th matrix of the model, one after the other; drawing numbers is not counted. Milliseconds. */
export function mergePart(part: number, parts: number, onDone: () => void): number {
  let total = 0;
  for (const [m, [out, inner]] of SMOLLM2.entries()) {
    if (m % parts !== part) continue;
    const draw = uniform(m);
    const sum = new UpdateSum({ out, in: inner }, { maxRank: keptRank(out, inner) });
    for (const rank of COHORT) {
      const factors = drawFactors(out, inner, rank, draw);
      total += timed(() => sum.add({ weight: 1, factors })).ms;
    }
    total += timed(() => sum.finish()).ms;
    onDone();
  }
  return total;
}

/** The case of a thousand clients: ranks 8 to 64, evenly. */
export function manyRanks(): number[] {
  const draw = uniform(7);
  return Array.from({ length: 1000 }, () => 8 + Math.floor((draw() + 0.5) * 57));
}

/**
 * The first `count` of them merged by `flexlora` and held against their mean, each drawn when it is taken, as a file would be read. The
 * state is kept at the rank that a server keeps for clients of rank 64.
 */
export function mergeDrawn(count: number, out: number, inner: number): void {
  const drawn = (client: number, rank: number) => drawFactors(out, inner, rank, uniform(1000 + client));
  const updates = manyRanks()
    .slice(0, count)
    .map((rank, client) => ({
      weight: 1 / count,
      start: null,
      end: {
        out,
        in: inner,
        rank,
        scale: 1,
        get a() {
          return drawn(client, rank).a;
        },
        get b() {
          return drawn(client, rank).b;
        },
      },
    }));
  flexlora.mergeMatrix({ current: null, updates, maxRank: 4 * 64 });
  agreementOf(updates);
}

export const sumTerms = (terms: readonly Term[], maxRank: number) => sumOfProducts(terms, { maxRank });
