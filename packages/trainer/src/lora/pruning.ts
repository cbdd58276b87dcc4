// HetLoRA's rank self-pruning on the client (Cho et al., EMNLP 2024, arXiv 2401.06432, §3.2): the loss is penalised by
// λ·‖B[:, γr:]‖·‖A[γr:, :]‖, and where training made that product smaller the directions behind γr are dropped. A client has one
// rank, so the products of all its matrices are added up and decide together: docs/decisions/0008-rank-self-pruning.md.
import { type LoraFactors, prunedRank } from '@weft/formats';

/** γ in (0, 1], and the weight of the penalty. */
export interface Pruning {
  readonly gamma: number;
  readonly lambda: number;
}

/** What a step of rank `rank` is told: directions that are kept, and λ. null where γ leaves no tail. */
export function tailOf(
  pruning: Pruning | null,
  rank: number,
): { readonly kept: number; readonly lambda: number } | null {
  if (pruning === null) return null;
  const kept = prunedRank(rank, pruning.gamma);
  return kept < rank ? { kept, lambda: pruning.lambda } : null;
}

/** Σ ‖B[:, kept:]‖·‖A[kept:, :]‖ over the matrices. */
export function tailProduct(factors: Iterable<LoraFactors>, kept: number): number {
  let sum = 0;
  for (const { rank, in: columns, a, b } of factors) {
    let [ofA, ofB] = [0, 0];
    for (let i = kept * columns; i < a.length; i += 1) ofA += (a[i] ?? 0) ** 2;
    for (let i = 0; i < b.length; i += 1) if (i % rank >= kept) ofB += (b[i] ?? 0) ** 2;
    sum += Math.sqrt(ofA) * Math.sqrt(ofB);
  }
  return sum;
}

/** The first `kept` directions at the same scale; all of a matrix that has no more. α/r stays, so α falls with the rank. */
export function firstDirections(factors: LoraFactors, kept: number): LoraFactors {
  const { rank, in: columns, out, alpha, a, b } = factors;
  if (rank <= kept) return factors;
  const shorter = Float32Array.from({ length: out * kept }, (_, i) => {
    const row = Math.floor(i / kept);
    return b[row * rank + (i - row * kept)] ?? 0;
  });
  return { ...factors, rank: kept, alpha: (alpha / rank) * kept, a: a.slice(0, kept * columns), b: shorter };
}

/** Trained factors as they are sent: without their tails where these have shrunk. */
export function pruned(
  start: ReadonlyMap<string, LoraFactors>,
  trained: ReadonlyMap<string, LoraFactors>,
  kept: number,
): { readonly factors: readonly LoraFactors[]; readonly isPruned: boolean } {
  const isPruned = tailProduct(trained.values(), kept) < tailProduct(start.values(), kept);
  const all = [...trained.values()];
  return { factors: isPruned ? all.map((factors) => firstDirections(factors, kept)) : all, isPruned };
}
