// How the changes of many clients stand to a weighted sum of them: norms and inner products of one matrix, which add up
// over matrices. Not pair by pair: the sum is stacked factors, or one dense matrix where those would be larger.
import { GrowingSum } from './growing-sum.ts';
import { addScaled, columns, dot } from './linalg/columns.ts';
import { addProduct, view } from './linalg/product.ts';
import { changeParts, type MatrixUpdate } from './spectrum.ts';
import { innerProduct, type Stack, stackTerms } from './stack.ts';

/** Of changes Δ_i and their sum Σ w·c·Δ, w the weight and c the clip of each update; ⟨ , ⟩ is Frobenius'. */
export interface Agreement {
  /** ‖Δ_i‖², before clipping. */
  readonly own: readonly number[];
  /** ⟨Δ_i, Σ w·c·Δ⟩ */
  readonly withSum: readonly number[];
  /** ‖Σ w·c·Δ‖² */
  readonly sum: number;
}

/**
 * The changes of all updates of one matrix beside their weighted sum; weights may be any finite numbers. `updates` is gone
 * through twice and no update is kept, so that it may read them from files. Costs W²·(out + in) operations for stacks of W
 * columns in all, or W·out·in and a dense matrix where that is less. Throws MergeError 'weights', 'shape', 'rank' or
 * 'non-finite'.
 */
export function agreementOf(updates: Iterable<MatrixUpdate>): Agreement {
  let total: GrowingSum | null = null;
  for (const update of updates) {
    total ??= new GrowingSum(update.end);
    if (coefficientOf(update) !== 0) total.add(stackTerms(changeParts(update)));
  }
  const own: number[] = [];
  const withSum: number[] = [];
  let sum = 0;
  let bound = 0;
  for (const update of updates) {
    const change = stackTerms(changeParts({ ...update, weight: 1, clip: 1 }));
    const product = total ? withTotal(change, total) : 0;
    const square = innerProduct(change, change);
    own.push(square);
    withSum.push(product);
    sum += coefficientOf(update) * product;
    bound += Math.abs(coefficientOf(update)) * Math.sqrt(square);
  }
  // What changes cancel to within rounding is no sum.
  return { own, withSum, sum: sum > ROUNDING * bound * bound ? sum : 0 };
}

/** Of the square of what a sum's terms could add up to. */
const ROUNDING = 1e-14;

/** What an update counts with in the sum. */
const coefficientOf = ({ weight, clip = 1 }: Pick<MatrixUpdate, 'weight' | 'clip'>): number => weight * clip;

/** {@link agreementOf} of lists of elements, all of one length: changes less their common start, null for zeros. */
export function agreementOfElements(
  updates: Iterable<Pick<MatrixUpdate, 'weight' | 'clip'> & { readonly values: Float32Array | Float64Array }>,
  start: Float64Array | null,
): Agreement {
  const changeOf = (values: Float32Array | Float64Array) =>
    Float64Array.from(values, (value, k) => value - (start?.[k] ?? 0));
  let total: Float64Array | null = null;
  for (const update of updates) {
    const { values } = update;
    total ??= new Float64Array(values.length);
    addScaled(coefficientOf(update), changeOf(values), 0, total, 0, values.length);
  }
  const own: number[] = [];
  const withSum: number[] = [];
  for (const { values } of updates) {
    const change = changeOf(values);
    own.push(dot(change, 0, change, 0, change.length));
    withSum.push(total ? dot(change, 0, total, 0, change.length) : 0);
  }
  return { own, withSum, sum: total ? dot(total, 0, total, 0, total.length) : 0 };
}

function withTotal(change: Stack, total: GrowingSum): number {
  if (!total.dense) return total.stacks.reduce((sum, stack) => sum + innerProduct(change, stack), 0);
  const image = columns(change.out, change.left.cols);
  addProduct(1, view(total.dense), view(change.right), view(image));
  return dot(change.left.data, 0, image.data, 0, image.data.length);
}

/** Of a whole adapter, from its matrices; all of the same updates in the same order. */
export function sumAgreements(parts: readonly Agreement[]): Agreement {
  const [first] = parts;
  if (!first) return { own: [], withSum: [], sum: 0 };
  const total = (list: (part: Agreement) => readonly number[]): number[] =>
    list(first).map((_, i) => parts.reduce((sum, part) => sum + (list(part)[i] ?? 0), 0));
  return {
    own: total((part) => part.own),
    withSum: total((part) => part.withSum),
    sum: parts.reduce((sum, part) => sum + part.sum, 0),
  };
}

/** What is left of squares that cancel to this share is rounding. */
const CANCELLED = 1e-12;

const cosine = (product: number, a: number, b: number): number =>
  Math.max(-1, Math.min(1, product / (Math.sqrt(a) * Math.sqrt(b))));

/** Cosine of each change with the sum; null where either is zero. */
export function cosinesWithSum({ own, withSum, sum }: Agreement): (number | null)[] {
  return own.map((square, i) => (square > 0 && sum > 0 ? cosine(withSum[i] ?? 0, square, sum) : null));
}

/**
 * Cosine of each change with the sum of all others; null where either is zero. `coefficients`: what each counted with in the
 * sum. Where others cancel to less than 1e-6 of their own size they are taken for zero.
 */
export function cosinesWithOthers(
  { own, withSum, sum }: Agreement,
  coefficients: readonly number[],
): (number | null)[] {
  // ‖Σ w·Δ − w_i·Δ_i‖² cancels where one change is nearly all of the sum.
  const floor = own.reduce((most, square, i) => most + (coefficients[i] ?? 0) ** 2 * square, 0);
  return own.map((square, i) => {
    const coefficient = coefficients[i] ?? 0;
    const product = withSum[i] ?? 0;
    const rest = sum - 2 * coefficient * product + coefficient * coefficient * square;
    if (square <= 0 || rest <= CANCELLED * floor) return null;
    return cosine(product - coefficient * square, square, rest);
  });
}
