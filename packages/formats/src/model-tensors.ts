// The tensors a checkpoint of a configuration holds, by their Hugging Face names, and the layers that LoRA may adapt.
import { type ModelConfig, PROJECTIONS, type Projection } from './model-config.ts';
import { elementsOf } from './safetensors.ts';

/** A linear layer that LoRA may adapt. `module` is its Hugging Face name, its weight is [out, in]. */
export interface LoraTarget {
  readonly module: string;
  readonly projection: Projection;
  readonly layer: number;
  readonly in: number;
  readonly out: number;
}

/** The adaptable layers of these projections, layer by layer. */
export function loraTargets(config: ModelConfig, projections: readonly Projection[] = PROJECTIONS): LoraTarget[] {
  const { hiddenSize, intermediateSize } = config;
  const query = config.heads * config.headSize;
  const key = config.kvHeads * config.headSize;
  const sizes: Record<Projection, { block: string; in: number; out: number }> = {
    q_proj: { block: 'self_attn', in: hiddenSize, out: query },
    k_proj: { block: 'self_attn', in: hiddenSize, out: key },
    v_proj: { block: 'self_attn', in: hiddenSize, out: key },
    o_proj: { block: 'self_attn', in: query, out: hiddenSize },
    gate_proj: { block: 'mlp', in: hiddenSize, out: intermediateSize },
    up_proj: { block: 'mlp', in: hiddenSize, out: intermediateSize },
    down_proj: { block: 'mlp', in: intermediateSize, out: hiddenSize },
  };
  const chosen = PROJECTIONS.filter((projection) => projections.includes(projection));
  return Array.from({ length: config.layers }, (_, layer) =>
    chosen.map((projection) => {
      const { block, ...shape } = sizes[projection];
      return { module: `model.layers.${layer}.${block}.${projection}`, projection, layer, ...shape };
    }),
  ).flat();
}

/** Every tensor the checkpoint must hold, with its shape. A tied head is the embedding and not listed again. */
export function modelTensors(config: ModelConfig): { name: string; shape: number[] }[] {
  const { hiddenSize, headSize, vocabSize, layers, biases, queryKeyNorm } = config;
  const projections = loraTargets(config).flatMap(({ module, projection, in: columns, out }) => [
    { name: `${module}.weight`, shape: [out, columns] },
    ...(biases.includes(projection) ? [{ name: `${module}.bias`, shape: [out] }] : []),
  ]);
  const norms = Array.from({ length: layers }, (_, layer) => [
    { name: `model.layers.${layer}.input_layernorm.weight`, shape: [hiddenSize] },
    { name: `model.layers.${layer}.post_attention_layernorm.weight`, shape: [hiddenSize] },
    ...(queryKeyNorm ? ['q_norm', 'k_norm'] : []).map((norm) => ({
      name: `model.layers.${layer}.self_attn.${norm}.weight`,
      shape: [headSize],
    })),
  ]).flat();
  return [
    { name: 'model.embed_tokens.weight', shape: [vocabSize, hiddenSize] },
    ...projections,
    ...norms,
    { name: 'model.norm.weight', shape: [hiddenSize] },
    ...(config.tiedEmbeddings ? [] : [{ name: 'lm_head.weight', shape: [vocabSize, hiddenSize] }]),
  ];
}

/** Number of parameters of the checkpoint, a tied head counted once. */
export const parameterCount = (config: ModelConfig): number =>
  modelTensors(config).reduce((sum, { shape }) => sum + elementsOf(shape), 0);
