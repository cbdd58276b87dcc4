// The forward pass of a Llama decoder as kernel calls.
import type { ModelConfig } from '@weft/formats';
import {
  add,
  attentionForward,
  embeddingForward,
  type KernelCall,
  linearCrossEntropy,
  reduceSum,
  rmsNormForward,
  ropeForward,
  subTensor,
  swigluForward,
} from '@weft/wgsl-kernels';
import type { LayerRefs } from './layout.ts';
import { type Graph, linearForward } from './linear.ts';

/** Sizes the attention kernels want. */
export function attentionSizes(config: ModelConfig, graph: Graph) {
  const { heads, kvHeads, headSize } = config;
  return { ...graph.layout.shape, heads, kvHeads, headSize };
}

function blockForward(graph: Graph, config: ModelConfig, index: number, refs: LayerRefs): KernelCall[] {
  const { layers, last, branch: branchRef, cos, sin } = graph.layout.forward;
  const t = graph.source.get.bind(graph.source);
  const name = `model.layers.${index}`;
  const eps = config.normEpsilon;
  const [x, middle, next] = [t(refs.x), t(refs.middle), t(layers[index + 1]?.x ?? last)] as const;
  const [normed1, normed2] = [t(refs.normed1), t(refs.normed2)] as const;
  const [q, k, v, attention] = [t(refs.q), t(refs.k), t(refs.v), t(refs.attention)] as const;
  const [gate, up, activated] = [t(refs.gate), t(refs.up), t(refs.activated)] as const;
  const branch = t(branchRef);
  const rope = { cos: t(cos), sin: t(sin) };
  const { sequence } = graph.layout.shape;
  return [
    ...rmsNormForward(
      { x, weight: graph.weight(`${name}.input_layernorm.weight`), y: normed1, rstd: t(refs.rstd1) },
      { eps },
    ),
    ...linearForward(graph, refs, `${name}.self_attn.q_proj`, normed1, q),
    ...linearForward(graph, refs, `${name}.self_attn.k_proj`, normed1, k),
    ...linearForward(graph, refs, `${name}.self_attn.v_proj`, normed1, v),
    ...ropeForward({ x: q, ...rope }, { heads: config.heads, headSize: config.headSize, sequence }),
    ...ropeForward({ x: k, ...rope }, { heads: config.kvHeads, headSize: config.headSize, sequence }),
    ...attentionForward({ q, k, v, out: attention, lse: t(refs.lse) }, attentionSizes(config, graph)),
    ...linearForward(graph, refs, `${name}.self_attn.o_proj`, attention, branch),
    ...add({ x, y: branch, out: middle }),
    ...rmsNormForward(
      { x: middle, weight: graph.weight(`${name}.post_attention_layernorm.weight`), y: normed2, rstd: t(refs.rstd2) },
      { eps },
    ),
    ...linearForward(graph, refs, `${name}.mlp.gate_proj`, normed2, gate),
    ...linearForward(graph, refs, `${name}.mlp.up_proj`, normed2, up),
    ...swigluForward({ gate, up, out: activated }),
    ...linearForward(graph, refs, `${name}.mlp.down_proj`, activated, branch),
    ...add({ x: middle, y: branch, out: next }),
  ];
}

/** Token ids to the normed hidden states [N, D]. */
export function hiddenStates(graph: Graph, config: ModelConfig): KernelCall[] {
  const { ids, layers, last, normed, rstd } = graph.layout.forward;
  const t = graph.source.get.bind(graph.source);
  const first = t(layers[0]?.x ?? last);
  return [
    ...embeddingForward({ ids: t(ids), table: graph.weight('model.embed_tokens.weight'), out: first }),
    ...layers.flatMap((refs, index) => blockForward(graph, config, index, refs)),
    ...rmsNormForward(
      { x: t(last), weight: graph.weight('model.norm.weight'), y: t(normed), rstd: t(rstd) },
      { eps: config.normEpsilon },
    ),
  ];
}

/** The language-model head: a matrix of its own, or the embedding table. */
export const headName = (config: ModelConfig): string =>
  config.tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';

/** Loss of every row and their sum in the report; with the gradient to the hidden states in `dnormed` when training. */
export function lossCalls(graph: Graph, config: ModelConfig): KernelCall[] {
  const { targets, normaliser, normed, logits, lossRows, report } = graph.layout.forward;
  const { backward } = graph.layout;
  const t = graph.source.get.bind(graph.source);
  return [
    ...linearCrossEntropy({
      hidden: t(normed),
      head: graph.weight(headName(config)),
      labels: t(targets),
      logits: t(logits),
      lossRows: t(lossRows),
      normaliser: t(normaliser),
      ...(backward ? { dhidden: t(backward.dnormed) } : {}),
    }),
    ...reduceSum({ x: t(lossRows), out: subTensor(t(report), 0, [1]) }),
  ];
}
