// A sum of stacks in the smaller of its two forms: side by side while they are narrower than the matrix, the matrix itself
// beyond. Either way its memory is that of the form, whatever the number of stacks.
import { type Columns, columns } from './linalg/columns.ts';
import { addProduct, transposedView, view } from './linalg/product.ts';
import type { Stack } from './stack.ts';
import type { Shape } from './types.ts';

/** A stack wider than this share of the smaller side costs more than the matrix. */
const STACKED_SHARE = 0.8;

export class GrowingSum {
  readonly #shape: Shape;
  readonly #forced: 'stacks' | 'dense' | undefined;
  #stacks: Stack[] = [];
  #dense: Columns | null = null;
  #width = 0;

  /** `forced`: the form it is kept in whatever its width. */
  constructor({ out, in: inner }: Shape, forced?: 'stacks' | 'dense') {
    this.#shape = { out, in: inner };
    this.#forced = forced;
  }

  add(stack: Stack): void {
    this.#width += stack.left.cols;
    if (stack.left.cols > 0) this.#stacks.push(stack);
    const { out, in: inner } = this.#shape;
    const narrow = this.#width <= STACKED_SHARE * Math.min(out, inner);
    if (this.#forced === undefined ? narrow : this.#forced === 'stacks') return;
    this.#dense ??= columns(out, inner);
    for (const { left, right } of this.#stacks)
      addProduct(1, view(left), transposedView(view(right)), view(this.#dense));
    this.#stacks = [];
  }

  /** Σr so far. */
  get width(): number {
    return this.#width;
  }

  /** The sum, [out, in]; null while it is kept as stacks. */
  get dense(): Columns | null {
    return this.#dense;
  }

  /** None once the sum is dense. */
  get stacks(): readonly Stack[] {
    return this.#stacks;
  }
}
