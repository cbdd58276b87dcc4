// Grouped-query attention over spans in float64, with every probability in memory: small inputs only.
import { logSumExp } from './cross-entropy.ts';
import { at, build, type Numbers, sumOf } from './numbers.ts';

export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Keys a query sees at most, the last of its span; null for all of them. */
  readonly window: number | null;
  /** [Nq, 2]: first and last row of k that each query sees; nothing where the last comes before the first. */
  readonly spans: Numbers;
}

/** Query i = row · heads + head, and key row j: where their vectors begin in q and k (or out and v). */
export function pair({ heads, kvHeads, headSize }: AttentionShape, i: number, j: number) {
  const kvHead = Math.floor((i % heads) / (heads / kvHeads));
  return { query: i * headSize, key: (j * kvHeads + kvHead) * headSize };
}

/** Rows of the keys that query i sees, in order. */
export function visible({ heads, window, spans }: AttentionShape, i: number): number[] {
  const row = Math.floor(i / heads);
  const last = at(spans, 2 * row + 1);
  const first = Math.max(at(spans, 2 * row), window === null ? 0 : last - window + 1);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, n) => first + n);
}

/** Queries of all rows and heads. */
export const queriesOf = ({ spans, heads }: AttentionShape): number => (spans.length / 2) * heads;

const dot = (a: Numbers, x: number, b: Numbers, y: number, count: number): number =>
  sumOf(count, (d) => at(a, x + d) * at(b, y + d));

/** q·k/√headSize of query i with each key it sees. */
export function scoresOf(q: Numbers, k: Numbers, shape: AttentionShape, i: number): Float64Array {
  const keys = visible(shape, i);
  return build(keys.length, (n) => {
    const { query, key } = pair(shape, i, at(keys, n));
    return dot(q, query, k, key, shape.headSize) / Math.sqrt(shape.headSize);
  });
}

/** log Σ exp of all scores of query i, and the probability of each key it sees. */
function probabilitiesOf(q: Numbers, k: Numbers, shape: AttentionShape, i: number) {
  const scores = scoresOf(q, k, shape, i);
  const lse = logSumExp(scores, 0, scores.length);
  const keys = visible(shape, i).map((row, n) => ({ row, probability: Math.exp(at(scores, n) - lse) }));
  return { lse, keys };
}

/** q [Nq, heads·headSize], k and v [Nk, kvHeads·headSize] → out as q, lse [Nq, heads] (−Infinity where nothing is seen). */
export function attention(
  q: Numbers,
  k: Numbers,
  v: Numbers,
  shape: AttentionShape,
): { out: Float64Array; lse: Float64Array } {
  const out = new Float64Array(q.length);
  const lse = build(queriesOf(shape), (i) => {
    if (visible(shape, i).length === 0) return Number.NEGATIVE_INFINITY;
    const { lse, keys } = probabilitiesOf(q, k, shape, i);
    for (const { row, probability } of keys) {
      const { query, key } = pair(shape, i, row);
      for (let d = 0; d < shape.headSize; d += 1) out[query + d] = at(out, query + d) + probability * at(v, key + d);
    }
    return lse;
  });
  return { out, lse };
}

/** dq, dk, dv from dout, with nothing taken from the forward pass. */
export function attentionGradient(
  q: Numbers,
  k: Numbers,
  v: Numbers,
  dout: Numbers,
  shape: AttentionShape,
): { dq: Float64Array; dk: Float64Array; dv: Float64Array } {
  const { headSize } = shape;
  const dq = new Float64Array(q.length);
  const dk = new Float64Array(k.length);
  const dv = new Float64Array(v.length);
  const { out } = attention(q, k, v, shape);
  for (let i = 0; i < queriesOf(shape); i += 1) {
    if (visible(shape, i).length === 0) continue;
    for (const { row, probability } of probabilitiesOf(q, k, shape, i).keys) {
      const { query, key } = pair(shape, i, row);
      const slope = dot(dout, query, v, key, headSize) - dot(dout, query, out, query, headSize);
      const ds = (probability * slope) / Math.sqrt(headSize);
      for (let d = 0; d < headSize; d += 1) {
        dq[query + d] = at(dq, query + d) + ds * at(k, key + d);
        dk[key + d] = at(dk, key + d) + ds * at(q, query + d);
        dv[key + d] = at(dv, key + d) + probability * at(dout, query + d);
      }
    }
  }
  return { dq, dk, dv };
}
