// A simulated report beside the law of singular values: which runs have one, what it is fitted to, and energies by rank.
import type { StrategyName } from '@weft/protocol';
import type { SimulatedRound } from './federation.ts';
import { fitLaw, type MatrixLaw, predict } from './prediction.ts';

export interface SimulatedRun {
  readonly strategy: StrategyName;
  readonly rounds: readonly SimulatedRound[];
  /** Mean held-out loss over tasks by round, nats per token; round 0 is the base model. */
  readonly heldOut: readonly { readonly round: number; readonly loss: number }[];
  readonly milliseconds: number;
}

/** Singular values of every matrix. */
export type Sigmas = readonly (readonly number[])[];

/** The law of each strategy that has one. */
const WAYS: Partial<Record<StrategyName, 'replaced' | 'carried'>> = {
  flexlora: 'replaced',
  'flexlora-carry': 'carried',
  'flexlora-frozen-tail': 'carried',
};
/** Runs whose own law gives its unknowns; the first there is. */
const FITTED_TO: readonly StrategyName[] = ['flexlora-carry', 'flexlora-frozen-tail'];

export interface Law {
  readonly fittedTo: StrategyName;
  readonly matrices: readonly MatrixLaw[];
}

/** null where no run carries over what clients do not reach. */
export function lawOf(runs: readonly SimulatedRun[]): Law | null {
  const run = FITTED_TO.map((name) => runs.find(({ strategy }) => strategy === name)).find(
    (each) => each !== undefined,
  );
  return run ? { fittedTo: run.strategy, matrices: fitLaw(run.rounds) } : null;
}

/** σ after every round as the law has them; null for a strategy without a law, or with that of the fitted run. */
export function lawfulSigmas(law: Law | null, { strategy, rounds }: SimulatedRun): Sigmas[] | null {
  const way = WAYS[strategy];
  if (!law || !way || (way === 'carried' && strategy !== law.fittedTo)) return null;
  const trained = rounds.map((round) => round.trained);
  const predicted = law.matrices.map((matrix) => predict(matrix, trained, way));
  return rounds.map((_, t) => predicted.map((ofMatrix) => ofMatrix[t] ?? []));
}

/** σ of every round after `from` in which nobody trains, from those measured there: σ·p^t, or σ where nothing is lost. */
export function idleSigmas({ strategy, rounds }: SimulatedRun, from: number): Sigmas[] | null {
  const way = WAYS[strategy];
  const last = rounds[from];
  if (!way || !last) return null;
  return rounds
    .slice(from)
    .map((_, t) =>
      last.matrices.map(({ sigma, p }) =>
        sigma.map((value, j) => (way === 'replaced' ? value * (p[j] ?? 0) ** t : value)),
      ),
    );
}

export const sigmasOf = ({ matrices }: SimulatedRound): Sigmas => matrices.map(({ sigma }) => sigma);

/** The last round of training; -1 where there is none. */
export const lastTrained = ({ rounds }: SimulatedRun): number => rounds.findLastIndex((round) => round.trained);

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;

/** ‖M − trunc_from(M)‖². */
export const energyOf = (sigma: readonly number[], from = 0): number =>
  sigma.slice(from).reduce((sum, value) => sum + value * value, 0);

const meanShare = (sigmas: Sigmas, part: (sigma: readonly number[]) => number): number =>
  mean(sigmas.flatMap((sigma) => (energyOf(sigma) > 0 ? [part(sigma) / energyOf(sigma)] : [])));

/** Share of ‖M‖² beyond the first `rank` directions, in the mean over the matrices that are not zero. */
export const energyBeyond = (sigmas: Sigmas, rank: number): number =>
  meanShare(sigmas, (sigma) => energyOf(sigma, rank));

/** Share of ‖M‖² of direction `j`, 0 for the first, in the mean over the matrices that are not zero. */
export const energyAt = (sigmas: Sigmas, j: number): number => meanShare(sigmas, (sigma) => (sigma[j] ?? 0) ** 2);
