// What a merge is told by: singular values, energy per rank, effective rank, who reaches which direction. How far the changes
// of the clients agree is asked for apart (agreement.ts): it costs about as much as the merge.
import { innerProduct, stackTerms, type Term } from './stack.ts';
import { type Factors, inHand, type LowRank } from './types.ts';

/** One client's work on one matrix. */
export interface MatrixUpdate {
  /** Share of the merge; the shares of all updates sum to 1. */
  readonly weight: number;
  readonly end: Factors;
  /** The factors the client started from exactly as they were served, after rounding. */
  readonly start: Factors | null;
  /** What its change is multiplied by, in (0, 1]; 1 unless said. Less than 1 needs the start (`clipFactors`). */
  readonly clip?: number;
  /** What errors call the client. */
  readonly name?: string;
}

export interface MatrixReport {
  /** Singular values of the next state, largest first. */
  readonly sigma: readonly number[];
  /** energyByRank[k]: share of ‖M‖² (before truncation) that the first k + 1 directions hold. */
  readonly energyByRank: readonly number[];
  /** exp of the entropy of σ/Σσ (Roy and Vetterli, 2007): 1 for one direction, n for n equal ones, 0 for M = 0. */
  readonly effectiveRank: number;
  /** p[j]: weight share of clients whose rank reaches direction j + 1, up to the largest rank. */
  readonly p: readonly number[];
  /** By client rank r: ‖M − trunc_r(M)‖ / ‖M‖, what a client of that rank does not see. */
  readonly truncationError: Readonly<Record<number, number>>;
  /** ‖M − next‖ / ‖M‖: what truncation to the stored rank lost. */
  readonly discardedTail: number;
}

export function matrixReport(next: LowRank, discarded: number, updates: readonly MatrixUpdate[]): MatrixReport {
  const sigma = [...next.sigma];
  const energies = sigma.map((value) => value * value);
  const whole = energies.reduce((sum, energy) => sum + energy, 0) + discarded * discarded;
  const share = (value: number): number => (whole === 0 ? 0 : value / whole);
  // Tails are summed from the small end: 1 − share would cancel.
  const tails = new Array<number>(sigma.length + 1);
  tails[sigma.length] = discarded * discarded;
  for (let k = sigma.length - 1; k >= 0; k -= 1) tails[k] = (tails[k + 1] ?? 0) + (energies[k] ?? 0);
  const ranks = [...new Set(updates.map(({ end }) => end.rank))].sort((a, b) => a - b);
  const lost = (rank: number): number => Math.sqrt(share(tails[Math.min(rank, sigma.length)] ?? 0));
  return {
    sigma,
    energyByRank: sigma.map((_, k) => 1 - share(tails[k + 1] ?? 0)),
    effectiveRank: effectiveRank(sigma),
    p: reach(updates),
    truncationError: Object.fromEntries(ranks.map((rank) => [rank, lost(rank)])),
    discardedTail: Math.sqrt(share(discarded * discarded)),
  };
}

/** ‖M − trunc_r(M)‖ / ‖M‖ at each of `ranks`, from what a report keeps; M before truncation to the stored rank. */
export function truncationErrors(
  { sigma, discardedTail }: Pick<MatrixReport, 'sigma' | 'discardedTail'>,
  ranks: readonly number[],
): number[] {
  const tail = (from: number): number => sigma.slice(from).reduceRight((sum, value) => sum + value * value, 0);
  const kept = tail(0);
  // Where nothing was kept, all is lost or there was nothing.
  if (kept === 0) return ranks.map(() => discardedTail);
  const share = 1 - discardedTail * discardedTail;
  return ranks.map((rank) => Math.sqrt((share * tail(rank)) / kept + discardedTail * discardedTail));
}

function effectiveRank(sigma: readonly number[]): number {
  const total = sigma.reduce((sum, value) => sum + value, 0);
  if (total === 0) return 0;
  const entropy = sigma.reduce((sum, value) => (value > 0 ? sum - (value / total) * Math.log(value / total) : sum), 0);
  return Math.exp(entropy);
}

/** p_j of {@link MatrixReport}. */
export function reach(
  updates: readonly { readonly weight: number; readonly end: { readonly rank: number } }[],
): number[] {
  const longest = updates.reduce((max, { end }) => Math.max(max, end.rank), 0);
  return Array.from({ length: longest }, (_, j) =>
    updates.reduce((sum, { weight, end }) => (end.rank > j ? sum + weight : sum), 0),
  );
}

/** The change of one update as terms to sum, clipped as it says: its end less its start. */
export const changeTerms = ({ weight, end, start, clip = 1, name }: MatrixUpdate): Term[] => {
  const called = name === undefined ? {} : { name };
  const ended = { weight: weight * clip, factors: end, ...called };
  const started = name === undefined ? {} : { name: `${name}, start weights` };
  return start === null ? [ended] : [ended, { weight: -weight * clip, factors: start, ...started }];
};

/**
 * The same change as s·(B − B₀)·A + s·B₀·(A − A₀), whose terms are as small as the change itself: no training is exactly 0.
 * Falls back to {@link changeTerms} where start and end differ in rank or scale.
 */
export function changeParts(update: MatrixUpdate): Term[] {
  const { weight, clip = 1, name } = update;
  if (update.start === null || update.start.rank !== update.end.rank || update.start.scale !== update.end.scale)
    return changeTerms(update);
  const [end, start] = [inHand(update.end), inHand(update.start)];
  const called = name === undefined ? {} : { name };
  const less = (values: Factors['a'], others: Factors['a']) =>
    Float64Array.from(values, (value, i) => value - (others[i] ?? Number.NaN));
  return [
    { weight: weight * clip, factors: { ...end, b: less(end.b, start.b) }, ...called },
    { weight: weight * clip, factors: { ...start, a: less(end.a, start.a) }, ...called },
  ];
}

/** ‖Σ weight · update‖ in the Frobenius norm, to about 1e-8 of the norms of its terms. */
export function normOfSum(terms: readonly Term[]): number {
  const stack = stackTerms(terms);
  return Math.sqrt(Math.max(0, innerProduct(stack, stack)));
}
