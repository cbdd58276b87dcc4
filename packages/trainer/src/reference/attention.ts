// Causal grouped-query attention of one example, with a window where the layer has one. Written with every probability in
// sight and apart from the kernels' own reference, so that each can find the other wrong.
import { addTo, at, dot } from './numbers.ts';

export interface AttentionShape {
  readonly tokens: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** How many tokens a query sees, itself included; null for all before it. */
  readonly window: number | null;
}

/** One query of one head: where it begins in q, where the keys it sees begin in k, and how much of each it takes. */
interface Query {
  readonly at: number;
  readonly keys: readonly number[];
  readonly probabilities: readonly number[];
}

function* queriesOf(q: Float64Array, k: Float64Array, shape: AttentionShape): Generator<Query> {
  const { tokens, heads, kvHeads, headSize, window } = shape;
  for (let t = 0; t < tokens; t += 1) {
    const first = window === null ? 0 : Math.max(0, t - window + 1);
    for (let head = 0; head < heads; head += 1) {
      const start = (t * heads + head) * headSize;
      const kvHead = Math.floor((head * kvHeads) / heads);
      const keys = Array.from({ length: t - first + 1 }, (_, j) => ((first + j) * kvHeads + kvHead) * headSize);
      const scores = keys.map((key) => dot(q, start, k, key, headSize) / Math.sqrt(headSize));
      const highest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - highest));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      yield { at: start, keys, probabilities: weights.map((weight) => weight / total) };
    }
  }
}

/** q [T, heads·headSize], k and v [T, kvHeads·headSize] → as q. */
export function attention(q: Float64Array, k: Float64Array, v: Float64Array, shape: AttentionShape): Float64Array {
  const out = new Float64Array(q.length);
  for (const query of queriesOf(q, k, shape)) {
    for (const [j, key] of query.keys.entries())
      addTo(out, query.at, v, key, shape.headSize, at(query.probabilities, j));
  }
  return out;
}

/** dq, dk and dv from dout [T, heads·headSize]. */
export function attentionGradient(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  dout: Float64Array,
  shape: AttentionShape,
): { dq: Float64Array; dk: Float64Array; dv: Float64Array } {
  const { headSize } = shape;
  const dq = new Float64Array(q.length);
  const dk = new Float64Array(k.length);
  const dv = new Float64Array(v.length);
  for (const query of queriesOf(q, k, shape)) {
    // Through the softmax: ds = p · (dp − Σ p·dp).
    const dp = query.keys.map((key) => dot(dout, query.at, v, key, headSize));
    const mean = query.probabilities.reduce((sum, p, j) => sum + p * at(dp, j), 0);
    for (const [j, key] of query.keys.entries()) {
      const p = at(query.probabilities, j);
      const ds = (p * (at(dp, j) - mean)) / Math.sqrt(headSize);
      addTo(dv, key, dout, query.at, headSize, p);
      addTo(dq, query.at, k, key, headSize, ds);
      addTo(dk, key, q, query.at, headSize, ds);
    }
  }
  return { dq, dk, dv };
}
