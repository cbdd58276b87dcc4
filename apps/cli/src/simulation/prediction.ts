// What the law of singular values predicts for a simulated run. Its two unknowns are taken from a run of flexlora-carry or
// flexlora-frozen-tail, whose own law they follow from, and never from the run that is predicted.
import { carried, replaced } from '@weft/flexlora';
import type { SimulatedRound } from './federation.ts';

export interface MatrixLaw {
  readonly module: string;
  /** η: share of the way to σ* a round of training takes. */
  readonly progress: number;
  /** σ* by direction. */
  readonly target: readonly number[];
  readonly p: readonly number[];
}

const PROGRESS_CANDIDATES = Array.from({ length: 199 }, (_, i) => (i + 1) / 200);

/** 1 − (1 − p·η)^t: the share of the way that {@link carried} has gone after t rounds. */
const gone = (p: number, progress: number, rounds: number): number => 1 - (1 - p * progress) ** rounds;

/**
 * The law of every matrix, fitted to the trained rounds of a run that carries over: η by least squares on the directions that
 * every client reaches, relative to where they end; σ* from where each direction ends.
 */
export function fitLaw(rounds: readonly SimulatedRound[]): MatrixLaw[] {
  const trained = rounds.filter((round) => round.trained);
  const last = trained.at(-1);
  if (!last) return [];
  return last.matrices.map(({ module, p, sigma: end }, m) => {
    const reached = end.flatMap((sigma, j) => ((p[j] ?? 0) > 1 - 1e-9 && sigma > 0 ? [j] : []));
    const errorOf = (progress: number): number =>
      reached.reduce(
        (sum, j) =>
          sum +
          trained.reduce((part, { matrices }, t) => {
            const share = (matrices[m]?.sigma[j] ?? 0) / (end[j] ?? 1);
            return part + (share - gone(1, progress, t + 1) / gone(1, progress, trained.length)) ** 2;
          }, 0),
        0,
      );
    const errors = PROGRESS_CANDIDATES.map(errorOf);
    const progress = PROGRESS_CANDIDATES[errors.indexOf(Math.min(...errors))] ?? 0;
    const target = end.map((sigma, j) => {
      const share = gone(p[j] ?? 0, progress, trained.length);
      return share > 0 ? sigma / share : 0;
    });
    return { module, progress, target, p };
  });
}

/** σ by round and direction of one matrix, as the law has it from σ = 0; `trained` says of every round whether anyone trains. */
export function predict(
  { progress, target, p }: MatrixLaw,
  trained: readonly boolean[],
  way: 'replaced' | 'carried',
): number[][] {
  const step = way === 'replaced' ? replaced : carried;
  let sigma = target.map(() => 0);
  return trained.map((trains) => {
    sigma = sigma.map((value, j) =>
      step(value, { p: p[j] ?? 0, progress: trains ? progress : 0, target: target[j] ?? 0 }),
    );
    return sigma;
  });
}
