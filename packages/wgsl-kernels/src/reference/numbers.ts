// Numbers as the reference sees them: rows in one flat list, read as float64 whatever they were stored as.

export type Numbers = ArrayLike<number>;

/** Element `i`. Throws RangeError beyond the end, so that a wrong index cannot pass for a number. */
export function at(numbers: Numbers, i: number): number {
  const value = numbers[i];
  if (value === undefined) throw new RangeError(`Element ${i} of ${numbers.length}.`);
  return value;
}

/** A new list of `count` elements, the i-th of which is `element(i)`. */
export function build(count: number, element: (i: number) => number): Float64Array {
  const out = new Float64Array(count);
  for (let i = 0; i < count; i += 1) out[i] = element(i);
  return out;
}

/** Σ term(i) over 0 ≤ i < count. */
export function sumOf(count: number, term: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += term(i);
  return sum;
}
