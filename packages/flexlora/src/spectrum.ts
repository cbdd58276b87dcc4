// What a merge is told by: singular values, energy per rank, effective rank, who reaches which direction, and how far the
// changes of the clients agree.
import { GrowingSum } from './growing-sum.ts';
import { type Columns, columns, dot } from './linalg/columns.ts';
import { addProduct, transposedView, view } from './linalg/product.ts';
import { innerProduct, joined, nuclearBound, type Stack, stackTerms, type Term } from './stack.ts';
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
  /** Cosine of each update's change (its product where no start is known) with the weighted mean change; 0 for no change. */
  readonly cosineToMean: readonly number[];
  /** ‖Δ‖ of each update's change, before clipping. */
  readonly changeNorm: readonly number[];
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
    ...changesBesideMean(updates),
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

/** What a square root of a cancelled sum can still tell from zero, of the square of its nuclear bound. */
const CANCELLED = 1e-14;

/**
 * The mean change is kept as any sum is, and every change is held against it by itself: no pairs of clients, and beyond the
 * width of the matrix one change at a time, read a second time.
 */
function changesBesideMean(updates: readonly MatrixUpdate[]): Pick<MatrixReport, 'cosineToMean' | 'changeNorm'> {
  const [first] = updates;
  if (!first) return { cosineToMean: [], changeNorm: [] };
  const sum = new GrowingSum(first.end);
  let kept: Stack[] = [];
  let bound = 0;
  for (const update of updates) {
    const change = changeOf(update);
    bound += update.weight * nuclearBound(change);
    sum.add(scaled(change, update.weight));
    if (sum.dense) kept = [];
    else kept.push(change);
  }
  const mean: Mean = sum.dense ?? joined(sum.stacks, first.end);
  const held = updates.map((update, i) => {
    const change = kept[i] ?? changeOf(update);
    const own = innerProduct(change, change);
    return { own, floor: CANCELLED * nuclearBound(change) ** 2, withMean: innerProductWithMean(change, mean) };
  });
  const norm = updates.reduce((total, { weight }, i) => total + weight * (held[i]?.withMean ?? 0), 0);
  return {
    cosineToMean: held.map(({ own, floor, withMean }) =>
      own <= floor || norm <= CANCELLED * bound ** 2 ? 0 : Math.max(-1, Math.min(1, withMean / Math.sqrt(own * norm))),
    ),
    changeNorm: held.map(({ own, floor }, i) => (own <= floor ? 0 : Math.sqrt(own) / (updates[i]?.clip ?? 1))),
  };
}

const changeOf = (update: MatrixUpdate): Stack => stackTerms(changeTerms({ ...update, weight: 1 }));

/** weight · L · Rᵀ; nothing at weight 0. */
function scaled({ out, in: inner, left, right }: Stack, weight: number): Stack {
  if (weight === 0) return { out, in: inner, left: columns(out, 0), right: columns(inner, 0) };
  return {
    out,
    in: inner,
    left: columns(
      out,
      left.cols,
      left.data.map((value) => weight * value),
    ),
    right,
  };
}

type Mean = Stack | Columns;

/** ⟨L·Rᵀ, mean⟩: (LᵀL') ∘ (RᵀR') summed where the mean is a stack, L ∘ (mean · R) where it is dense. */
function innerProductWithMean({ left, right }: Stack, mean: Mean): number {
  if ('data' in mean) {
    const image = columns(left.rows, left.cols);
    addProduct(1, view(mean), view(right), view(image));
    return dot(left.data, 0, image.data, 0, image.data.length);
  }
  const ofLeft = columns(left.cols, mean.left.cols);
  const ofRight = columns(left.cols, mean.left.cols);
  addProduct(1, transposedView(view(left)), view(mean.left), view(ofLeft));
  addProduct(1, transposedView(view(right)), view(mean.right), view(ofRight));
  return dot(ofLeft.data, 0, ofRight.data, 0, ofLeft.data.length);
}
