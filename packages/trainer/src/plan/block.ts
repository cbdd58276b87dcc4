// One decoder block: what the forward pass computes and keeps, and the backward pass from its output's gradient down to its
// input's. Feed-forward tensors, the widest of a model, are cut by rows where they are larger than a binding covers.
import type { ModelConfig } from '@weft/formats';
import {
  attentionBackward,
  attentionForward,
  rmsNormBackward,
  rmsNormForward,
  rmsNormRopeBackward,
  rmsNormRopeForward,
  ropeQueryKeyBackward,
  ropeQueryKeyForward,
  subTensor,
  swigluBackward,
  swigluForward,
  type Tensor,
} from '@weft/wgsl-kernels';
import type { GraphBuilder } from './builder.ts';
import { linearBackward, linearForward } from './linear.ts';

/** A projected q or k: normed per head where the model does so, then rotated. */
interface Heads {
  /** [N, heads · headSize], as attention takes it. */
  readonly turned: Tensor;
  /** Before the norm, and the norm's 1/rms [N · heads]; null where there is no norm. */
  readonly norm: { readonly raw: Tensor; readonly rstd: Tensor } | null;
}

/** Rows `first` to `first + count` of the feed-forward part. */
interface FeedForwardPart {
  readonly first: number;
  readonly count: number;
  readonly gate: Tensor;
  readonly up: Tensor;
  readonly activated: Tensor;
  readonly xa: { readonly gate: Tensor | null; readonly up: Tensor | null; readonly down: Tensor | null };
}

/** What the backward pass needs of a block. */
export interface BlockActivations {
  readonly x: Tensor;
  readonly normed1: Tensor;
  readonly rstd1: Tensor;
  readonly q: Heads;
  readonly k: Heads;
  readonly v: Tensor;
  readonly attention: Tensor;
  readonly lse: Tensor;
  /** Residual stream between attention and feed-forward [N, D]. */
  readonly middle: Tensor;
  readonly normed2: Tensor;
  readonly rstd2: Tensor;
  readonly parts: readonly FeedForwardPart[];
  readonly xa: {
    readonly q: Tensor | null;
    readonly k: Tensor | null;
    readonly v: Tensor | null;
    readonly o: Tensor | null;
  };
}

/** Computes attention of rotated q over k and v, wherever these are kept; returns out [N, heads · headSize] and its lse. */
export type Attend = (layer: number, q: Tensor, k: Tensor, v: Tensor) => { out: Tensor; lse: Tensor };

/** Sizes of attention in one layer. */
export function attentionSizes({ heads, kvHeads, headSize, windows }: ModelConfig, layer: number) {
  return { heads, kvHeads, headSize, window: windows[layer] ?? null };
}

/** Attention among the rows of a batch. */
export function attendWithin(g: GraphBuilder): Attend {
  return (layer, q, k, v) => {
    const out = g.temporary('attention', q.shape);
    const lse = g.temporary('lse', [g.rows, g.config.heads]);
    g.push(attentionForward({ q, k, v, spans: g.batch.querySpans, out, lse }, attentionSizes(g.config, layer)));
    return { out, lse };
  };
}

function norm(g: GraphBuilder, name: string, x: Tensor): { y: Tensor; rstd: Tensor } {
  const y = g.temporary(name, x.shape);
  const rstd = g.temporary(`${name}.rstd`, [x.shape[0] ?? 0]);
  g.push(rmsNormForward({ x, weight: g.weights.vector(`${name}.weight`), y, rstd }, { eps: g.config.normEpsilon }));
  return { y, rstd };
}

/** Projected queries and keys, turned; normed before it where the model does so. */
function turnHeads(g: GraphBuilder, attention: string, projected: { q: Tensor; k: Tensor }): { q: Heads; k: Heads } {
  const { heads, kvHeads, headSize, queryKeyNorm, normEpsilon: eps } = g.config;
  const angles = { positions: g.batch.positions, ...g.rope };
  if (!queryKeyNorm) {
    g.push(ropeQueryKeyForward({ ...projected, ...angles }, { heads, kvHeads, headSize }));
    return { q: { turned: projected.q, norm: null }, k: { turned: projected.k, norm: null } };
  }
  const normed = (which: 'q' | 'k', count: number): Heads => {
    const raw = projected[which];
    const name = `${attention}.${which}_norm`;
    const y = g.temporary(name, raw.shape);
    const rstd = g.temporary(`${name}.rstd`, [raw.elements / headSize]);
    const weight = g.weights.vector(`${name}.weight`);
    g.push(rmsNormRopeForward({ x: raw, weight, rstd, y, ...angles }, { heads: count, headSize, eps }));
    return { turned: y, norm: { raw, rstd } };
  };
  return { q: normed('q', heads), k: normed('k', kvHeads) };
}

/** How many rows of a tensor `width` wide fit one binding; parts begin at multiples of 64 rows, where views may begin. */
function rowParts(rows: number, width: number, limit: number): { first: number; count: number }[] {
  const most = Math.max(64, Math.floor(limit / (4 * width) / 64) * 64);
  return Array.from({ length: Math.ceil(rows / most) }, (_, i) => ({
    first: i * most,
    count: Math.min(most, rows - i * most),
  }));
}

const rowsFrom = (x: Tensor, { first, count }: { first: number; count: number }): Tensor => {
  const width = x.shape[1] ?? 1;
  return subTensor(x, first * width, [count, width]);
};

/**
 * The block numbered `layer` on x [N, D]. Its output goes to `next` [N, D]; without it, only what the backward pass needs is
 * computed, for a block whose activations were not kept.
 */
export function blockForward(
  g: GraphBuilder,
  layer: number,
  x: Tensor,
  { next, attend }: { next: Tensor | null; attend: Attend },
): BlockActivations {
  const { config, rows } = g;
  const block = `model.layers.${layer}`;
  const attention = `${block}.self_attn`;
  const mlp = `${block}.mlp`;
  const projected = (part: string, heads: number) => g.temporary(part, [rows, heads * config.headSize]);
  const { y: normed1, rstd: rstd1 } = norm(g, `${block}.input_layernorm`, x);
  const [qRaw, kRaw, v] = [
    projected('q', config.heads),
    projected('k', config.kvHeads),
    projected('v', config.kvHeads),
  ];
  const xaQ = linearForward(g, `${attention}.q_proj`, normed1, qRaw);
  const xaK = linearForward(g, `${attention}.k_proj`, normed1, kRaw);
  const xaV = linearForward(g, `${attention}.v_proj`, normed1, v);
  const { q, k } = turnHeads(g, attention, { q: qRaw, k: kRaw });
  const { out, lse } = attend(layer, q.turned, k.turned, v);
  const middle = g.temporary('middle', x.shape);
  const xaO = linearForward(g, `${attention}.o_proj`, out, middle, x);
  const { y: normed2, rstd: rstd2 } = norm(g, `${block}.post_attention_layernorm`, middle);
  const parts = rowParts(rows, config.intermediateSize, g.limit).map((part): FeedForwardPart => {
    const wide = (name: string) => g.temporary(name, [part.count, config.intermediateSize]);
    const [gate, up, activated] = [wide('gate'), wide('up'), wide('activated')];
    const input = rowsFrom(normed2, part);
    const xaGate = linearForward(g, `${mlp}.gate_proj`, input, gate);
    const xaUp = linearForward(g, `${mlp}.up_proj`, input, up);
    g.push(swigluForward({ gate, up, out: activated }));
    const output = next && rowsFrom(next, part);
    const xaDown = linearForward(g, `${mlp}.down_proj`, activated, output, rowsFrom(middle, part));
    return { ...part, gate, up, activated, xa: { gate: xaGate, up: xaUp, down: xaDown } };
  });
  const xa = { q: xaQ, k: xaK, v: xaV, o: xaO };
  return { x, normed1, rstd1, q, k, v, attention: out, lse, middle, normed2, rstd2, parts, xa };
}

function normBackward(g: GraphBuilder, name: string, x: Tensor, rstd: Tensor, dy: Tensor, dx: Tensor): void {
  g.push(rmsNormBackward({ x, weight: g.weights.vector(`${name}.weight`), rstd, dy, dx }, { accumulate: true }));
}

/** Turns the gradients of the turned heads into those of what was projected, in their place. */
function headsBackward(
  g: GraphBuilder,
  attention: string,
  { q, k }: Pick<BlockActivations, 'q' | 'k'>,
  gradients: { q: Tensor; k: Tensor },
): void {
  const { heads, kvHeads, headSize } = g.config;
  const angles = { positions: g.batch.positions, ...g.rope };
  if (!q.norm || !k.norm) {
    g.push(ropeQueryKeyBackward({ ...gradients, ...angles }, { heads, kvHeads, headSize }));
    return;
  }
  for (const [which, { raw, rstd }, count] of [
    ['q', q.norm, heads],
    ['k', k.norm, kvHeads],
  ] as const) {
    const weight = g.weights.vector(`${attention}.${which}_norm.weight`);
    const tensors = { x: raw, weight, rstd, dy: gradients[which], ...angles };
    g.push(rmsNormRopeBackward(tensors, { heads: count, headSize }));
  }
}

function feedForwardBackward(g: GraphBuilder, layer: number, kept: BlockActivations, dstream: Tensor): void {
  const mlp = `model.layers.${layer}.mlp`;
  const dnormed = g.temporary('dnormed', kept.normed2.shape);
  for (const part of kept.parts) {
    const wide = (name: string) => g.temporary(name, part.gate.shape);
    const [dactivated, dgate, dup] = [wide('dactivated'), wide('dgate'), wide('dup')];
    const x = rowsFrom(kept.normed2, part);
    const dx = rowsFrom(dnormed, part);
    const dy = rowsFrom(dstream, part);
    linearBackward(g, `${mlp}.down_proj`, { x: part.activated, xa: part.xa.down, dy, dx: dactivated });
    g.push(swigluBackward({ gate: part.gate, up: part.up, dout: dactivated, dgate, dup }));
    linearBackward(g, `${mlp}.gate_proj`, { x, xa: part.xa.gate, dy: dgate, dx });
    linearBackward(g, `${mlp}.up_proj`, { x, xa: part.xa.up, dy: dup, dx, accumulate: true });
  }
  normBackward(g, `model.layers.${layer}.post_attention_layernorm`, kept.middle, kept.rstd2, dnormed, dstream);
}

function selfAttentionBackward(
  g: GraphBuilder,
  layer: number,
  kept: BlockActivations,
  dstream: Tensor,
  keySpans: Tensor,
  isLowest: boolean,
): void {
  const block = `model.layers.${layer}`;
  const attention = `${block}.self_attn`;
  const like = (name: string, x: Tensor) => g.temporary(name, x.shape);
  const dattention = like('dattention', kept.attention);
  linearBackward(g, `${attention}.o_proj`, { x: kept.attention, xa: kept.xa.o, dy: dstream, dx: dattention });
  const [dq, dk, dv] = [like('dq', kept.q.turned), like('dk', kept.k.turned), like('dv', kept.v)];
  g.push(
    attentionBackward(
      {
        q: kept.q.turned,
        k: kept.k.turned,
        v: kept.v,
        spans: g.batch.querySpans,
        keySpans,
        out: kept.attention,
        lse: kept.lse,
        dout: dattention,
        stats: g.temporary('attention.stats', [g.rows, g.config.heads, 2]),
        dq,
        dk,
        dv,
      },
      attentionSizes(g.config, layer),
    ),
  );
  headsBackward(g, attention, kept, { q: dq, k: dk });
  const dnormed = isLowest ? null : like('dnormed', kept.normed1);
  const x = kept.normed1;
  linearBackward(g, `${attention}.q_proj`, { x, xa: kept.xa.q, dy: dq, dx: dnormed });
  linearBackward(g, `${attention}.k_proj`, { x, xa: kept.xa.k, dy: dk, dx: dnormed, accumulate: true });
  linearBackward(g, `${attention}.v_proj`, { x, xa: kept.xa.v, dy: dv, dx: dnormed, accumulate: true });
  if (dnormed) normBackward(g, `${block}.input_layernorm`, kept.x, kept.rstd1, dnormed, dstream);
}

/** Does the adapter in training adapt anything of this block's attention? */
const trainsAttention = (g: GraphBuilder, layer: number): boolean =>
  ['q_proj', 'k_proj', 'v_proj', 'o_proj'].some((each) =>
    g.adapters[0]?.trains(`model.layers.${layer}.self_attn.${each}`),
  );

/**
 * From the gradient of the block's output in `dstream` [N, D], which becomes the gradient of its input. Below the lowest
 * trained block nothing is computed: the rest of the model is frozen.
 */
export function blockBackward(
  g: GraphBuilder,
  layer: number,
  kept: BlockActivations,
  { dstream, keySpans, isLowest }: { dstream: Tensor; keySpans: Tensor; isLowest: boolean },
): void {
  feedForwardBackward(g, layer, kept, dstream);
  if (isLowest && !trainsAttention(g, layer)) return;
  selfAttentionBackward(g, layer, kept, dstream, keySpans, isLowest);
}
