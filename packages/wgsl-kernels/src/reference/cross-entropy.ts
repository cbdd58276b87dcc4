// Cross-entropy of rows of logits in float64, in nats, with its gradient.
import { at, build, type Numbers } from './numbers.ts';

/** log Σ exp of `count` elements from `first` on. */
export function logSumExp(x: Numbers, first: number, count: number): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i += 1) highest = Math.max(highest, at(x, first + i));
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += Math.exp(at(x, first + i) - highest);
  return highest + Math.log(sum);
}

/** logits [R, V], labels [R] (negative: ignored, exactly 0) → loss [R], dlogits [R, V] = (softmax − onehot) · normaliser. */
export function crossEntropy(
  logits: Numbers,
  labels: Numbers,
  normaliser: number,
): { loss: Float64Array; dlogits: Float64Array } {
  const rows = labels.length;
  const vocabulary = logits.length / rows;
  const lse = build(rows, (row) => logSumExp(logits, row * vocabulary, vocabulary));
  const loss = build(rows, (row) => {
    const label = at(labels, row);
    return label < 0 ? 0 : at(lse, row) - at(logits, row * vocabulary + label);
  });
  const dlogits = build(logits.length, (i) => {
    const row = Math.floor(i / vocabulary);
    const label = at(labels, row);
    if (label < 0) return 0;
    return normaliser * (Math.exp(at(logits, i) - at(lse, row)) - (i % vocabulary === label ? 1 : 0));
  });
  return { loss, dlogits };
}
