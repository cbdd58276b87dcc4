// The backward pass: from the gradient of the last hidden states down to the factors of the first block. Nothing flows
// below the first block's factors, since the embedding is frozen.
import type { ModelConfig } from '@weft/formats';
import {
  attentionBackward,
  type KernelCall,
  rmsNormBackward,
  ropeBackward,
  swigluBackward,
  type Tensor,
} from '@weft/wgsl-kernels';
import { attentionSizes } from './forward.ts';
import type { BackwardRefs, LayerRefs } from './layout.ts';
import { type Graph, linearBackward } from './linear.ts';

function blockBackward(
  graph: Graph,
  config: ModelConfig,
  index: number,
  refs: LayerRefs,
  grads: BackwardRefs,
): KernelCall[] {
  const t = graph.source.get.bind(graph.source);
  const name = `model.layers.${index}`;
  const dstream = t(grads.dstream);
  const dnormed = t(grads.dnormed);
  const linear = (module: string, x: Tensor, dy: Tensor, dx: Tensor | null, accumulate = false) =>
    linearBackward(graph, refs, `${name}.${module}`, { x, dy, dx, accumulate });
  const rope = { cos: t(graph.layout.forward.cos), sin: t(graph.layout.forward.sin) };
  const { sequence } = graph.layout.shape;
  const { heads, kvHeads, headSize } = config;
  const [dq, dk, dv] = [t(grads.dq), t(grads.dk), t(grads.dv)];
  const [normed1, normed2] = [t(refs.normed1), t(refs.normed2)];
  const isFirst = index === 0;
  return [
    ...linear('mlp.down_proj', t(refs.activated), dstream, t(grads.dactivated)),
    ...swigluBackward({
      gate: t(refs.gate),
      up: t(refs.up),
      dout: t(grads.dactivated),
      dgate: t(grads.dgate),
      dup: t(grads.dup),
    }),
    ...linear('mlp.gate_proj', normed2, t(grads.dgate), dnormed),
    ...linear('mlp.up_proj', normed2, t(grads.dup), dnormed, true),
    ...rmsNormBackward(
      {
        x: t(refs.middle),
        weight: graph.weight(`${name}.post_attention_layernorm.weight`),
        rstd: t(refs.rstd2),
        dy: dnormed,
        dx: dstream,
      },
      { accumulate: true },
    ),
    ...linear('self_attn.o_proj', t(refs.attention), dstream, t(grads.dattention)),
    ...attentionBackward(
      {
        q: t(refs.q),
        k: t(refs.k),
        v: t(refs.v),
        out: t(refs.attention),
        lse: t(refs.lse),
        dout: t(grads.dattention),
        delta: t(grads.delta),
        dq,
        dk,
        dv,
      },
      attentionSizes(config, graph),
    ),
    ...ropeBackward({ x: dq, ...rope }, { heads, headSize, sequence }),
    ...ropeBackward({ x: dk, ...rope }, { heads: kvHeads, headSize, sequence }),
    ...linear('self_attn.q_proj', normed1, dq, isFirst ? null : dnormed),
    ...linear('self_attn.k_proj', normed1, dk, isFirst ? null : dnormed, true),
    ...linear('self_attn.v_proj', normed1, dv, isFirst ? null : dnormed, true),
    ...(isFirst
      ? []
      : rmsNormBackward(
          {
            x: t(refs.x),
            weight: graph.weight(`${name}.input_layernorm.weight`),
            rstd: t(refs.rstd1),
            dy: dnormed,
            dx: dstream,
          },
          { accumulate: true },
        )),
  ];
}

/** Gradients of all factors into `grads`, from the gradient of the normed hidden states in `dnormed`. */
export function backwardCalls(graph: Graph, config: ModelConfig, grads: BackwardRefs): KernelCall[] {
  const t = graph.source.get.bind(graph.source);
  const { layers, last, rstd } = graph.layout.forward;
  return [
    ...rmsNormBackward(
      {
        x: t(last),
        weight: graph.weight('model.norm.weight'),
        rstd: t(rstd),
        dy: t(grads.dnormed),
        dx: t(grads.dstream),
      },
      { accumulate: false },
    ),
    ...layers
      .map((refs, index) => blockBackward(graph, config, index, refs, grads))
      .reverse()
      .flat(),
  ];
}
