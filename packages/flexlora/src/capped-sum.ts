// A sum kept at a fixed rank while updates arrive, in memory that does not grow with them. What every step cuts off is
// counted, and bounds the error of the whole.
import { MergeError } from './errors.ts';
import { stackOf, type Term } from './stack.ts';
import { sumOfProducts } from './sum.ts';
import { type LowRank, type Shape, zeroUpdate } from './types.ts';

export interface CappedSumOptions {
  /** Rank that is kept. Directions that grow later may be cut off early, so it must be at least 4 · `maxRank`. */
  readonly cap: number;
  /** Largest rank the result will be read out at. */
  readonly maxRank: number;
  readonly seed?: string;
}

/** Σ weight · update at rank `cap`, update by update: memory (out + in) · (2 · cap + the update's rank). */
export class CappedSum {
  readonly #cap: number;
  readonly #seed: string;
  readonly #shape: Shape;
  #value: LowRank;
  #waiting: Term[] = [];
  #width = 0;
  #lost = 0;

  /** Throws MergeError 'rank'. */
  constructor({ out, in: inner }: Shape, { cap, maxRank, seed = '' }: CappedSumOptions) {
    const least = Math.min(out, inner, 4 * maxRank);
    if (!(cap >= least))
      throw new MergeError(
        'rank',
        `A capped sum keeps rank ${least} at least for read-outs of ${maxRank}, not ${cap}.`,
      );
    this.#shape = { out, in: inner };
    this.#cap = cap;
    this.#seed = seed;
    this.#value = zeroUpdate(this.#shape);
  }

  /** Throws MergeError 'weights', 'shape', 'rank' or 'non-finite'; the sum is then as it was. */
  add(term: Term): void {
    const { left } = stackOf(term, this.#shape);
    this.#waiting.push(term);
    this.#width += left.cols;
    // Several at once: a decomposition for each would cost more than the updates.
    if (this.#width >= this.#cap) this.#fold();
  }

  #fold(): void {
    if (this.#waiting.length === 0) return;
    const { value, discarded } = sumOfProducts([{ weight: 1, factors: this.#value }, ...this.#waiting], {
      maxRank: this.#cap,
      seed: this.#seed,
    });
    this.#value = value;
    this.#lost += discarded;
    this.#waiting = [];
    this.#width = 0;
  }

  /** The sum so far, and a bound of its error in the Frobenius norm: the sum of what was cut off. */
  finish(): { value: LowRank; errorBound: number } {
    this.#fold();
    return { value: this.#value, errorBound: this.#lost };
  }
}
