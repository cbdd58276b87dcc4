// Causal grouped-query attention in float64, with every probability in memory: small inputs only.
import { logSumExp } from './cross-entropy.ts';
import { at, build, type Numbers, sumOf } from './numbers.ts';

export interface AttentionShape {
  readonly batch: number;
  readonly sequence: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/** Query i = row · heads + head, and key j of its sequence: where their vectors begin in q and k (or out and v). */
export function pair(shape: AttentionShape, i: number, j: number): { query: number; key: number } {
  const { sequence, heads, kvHeads, headSize } = shape;
  const row = Math.floor(i / heads);
  const kvHead = Math.floor((i % heads) / (heads / kvHeads));
  const keyRow = row - (row % sequence) + j;
  return { query: i * headSize, key: (keyRow * kvHeads + kvHead) * headSize };
}

/** Keys that query i sees: its own position and those before. */
export const visible = ({ sequence, heads }: AttentionShape, i: number): number =>
  (Math.floor(i / heads) % sequence) + 1;

/** Queries of all rows and heads. */
export const queriesOf = ({ batch, sequence, heads }: AttentionShape): number => batch * sequence * heads;

const dot = (a: Numbers, x: number, b: Numbers, y: number, count: number): number =>
  sumOf(count, (d) => at(a, x + d) * at(b, y + d));

/** q·k/√headSize of query i with each key it sees. */
export function scoresOf(q: Numbers, k: Numbers, shape: AttentionShape, i: number): Float64Array {
  return build(visible(shape, i), (j) => {
    const { query, key } = pair(shape, i, j);
    return dot(q, query, k, key, shape.headSize) / Math.sqrt(shape.headSize);
  });
}

/** q [N, heads·headSize], k and v [N, kvHeads·headSize] → out as q, lse [N, heads]. */
export function attention(
  q: Numbers,
  k: Numbers,
  v: Numbers,
  shape: AttentionShape,
): { out: Float64Array; lse: Float64Array } {
  const out = new Float64Array(q.length);
  const lse = build(queriesOf(shape), (i) => {
    const scores = scoresOf(q, k, shape, i);
    const total = logSumExp(scores, 0, scores.length);
    for (const [j, score] of scores.entries()) {
      const { query, key } = pair(shape, i, j);
      const probability = Math.exp(score - total);
      for (let d = 0; d < shape.headSize; d += 1) out[query + d] = at(out, query + d) + probability * at(v, key + d);
    }
    return total;
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
    const scores = scoresOf(q, k, shape, i);
    const total = logSumExp(scores, 0, scores.length);
    for (const [j, score] of scores.entries()) {
      const { query, key } = pair(shape, i, j);
      const probability = Math.exp(score - total);
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
