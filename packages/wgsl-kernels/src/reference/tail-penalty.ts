// The penalty on the last directions of a pair of LoRA factors (HetLoRA's rank self-pruning; Cho et al. 2024, §3.2), and its
// gradient, in float64.
import { at, build, type Numbers } from './numbers.ts';

export interface TailFactors {
  readonly rank: number;
  /** [rank, in] */
  readonly a: Numbers;
  /** [out, rank] */
  readonly b: Numbers;
}

function tailNorms({ rank, a, b }: TailFactors, kept: number): { ofA: number; ofB: number } {
  const columns = a.length / rank;
  let [squaresA, squaresB] = [0, 0];
  for (let i = kept * columns; i < a.length; i += 1) squaresA += at(a, i) ** 2;
  for (let i = 0; i < b.length; i += 1) if (i % rank >= kept) squaresB += at(b, i) ** 2;
  return { ofA: Math.sqrt(squaresA), ofB: Math.sqrt(squaresB) };
}

/** ‖B[:, kept:]‖·‖A[kept:, :]‖ */
export function tailPenalty(factors: TailFactors, kept: number): number {
  const { ofA, ofB } = tailNorms(factors, kept);
  return ofA * ofB;
}

/** Gradients of {@link tailPenalty}; 0 where a norm is 0. */
export function tailPenaltyGradient(factors: TailFactors, kept: number): { a: Float64Array; b: Float64Array } {
  const { rank, a, b } = factors;
  const { ofA, ofB } = tailNorms(factors, kept);
  const columns = a.length / rank;
  const toA = ofA > 0 ? ofB / ofA : 0;
  const toB = ofB > 0 ? ofA / ofB : 0;
  return {
    a: build(a.length, (i) => (i >= kept * columns ? toA * at(a, i) : 0)),
    b: build(b.length, (i) => (i % rank >= kept ? toB * at(b, i) : 0)),
  };
}
