// The decoder of every family, forward and backward, one example at a time. Written once more in the plainest way, with
// nothing shared with the GPU's path but the configuration, so that a test of one against the other means something.
import { loraTargets, type ModelConfig, type Projection } from '@weft/formats';
import { attention, attentionGradient } from './attention.ts';
import { type Branch, type Linear, linear, linearGradient, type Mask } from './linear.ts';
import { float64, type Numbers, sumOf, times, timesTransposed } from './numbers.ts';
import { rmsNorm, rmsNormGradient, swiglu, swigluGradient } from './pointwise.ts';
import { rotaryFrequencies, rotate } from './rotary.ts';

/** Weights by Hugging Face name, as modelTensors(config) lists them. */
export interface Weights {
  readonly config: ModelConfig;
  /** Elements of a tensor, row by row: of a checkpoint, or what is left of them after quantisation. */
  readonly weight: (name: string) => Numbers;
}

interface Block {
  readonly inputNorm: Float64Array;
  readonly postNorm: Float64Array;
  /** [headSize] each, or null */
  readonly queryNorm: Float64Array | null;
  readonly keyNorm: Float64Array | null;
  readonly window: number | null;
  readonly modules: Readonly<Record<Projection, string>>;
}

export interface Decoder {
  readonly config: ModelConfig;
  /** [V, D] */
  readonly embedding: Float64Array;
  readonly blocks: readonly Block[];
  readonly finalNorm: Float64Array;
  /** [V, D] */
  readonly head: Float64Array;
  readonly layers: ReadonlyMap<string, Linear>;
  readonly frequencies: Float64Array;
}

/** Every weight in float64, and the branches at their layers. Throws RangeError when a branch is for a module there is not. */
export function assemble(
  { config, weight }: Weights,
  trained: ReadonlyMap<string, Branch>,
  frozen: ReadonlyMap<string, readonly Branch[]>,
): Decoder {
  const read = (name: string) => float64(weight(name));
  const targets = loraTargets(config);
  const layers = new Map(
    targets.map(({ module, projection, in: width }): [string, Linear] => [
      module,
      {
        in: width,
        weight: read(`${module}.weight`),
        bias: config.biases.includes(projection) ? read(`${module}.bias`) : null,
        trained: trained.get(module) ?? null,
        frozen: frozen.get(module) ?? [],
      },
    ]),
  );
  for (const module of [...trained.keys(), ...frozen.keys()])
    if (!layers.has(module)) throw new RangeError(`The model has no ${module} to adapt.`);
  const blocks = Array.from({ length: config.layers }, (_, layer): Block => {
    const name = `model.layers.${layer}`;
    return {
      inputNorm: read(`${name}.input_layernorm.weight`),
      postNorm: read(`${name}.post_attention_layernorm.weight`),
      queryNorm: config.queryKeyNorm ? read(`${name}.self_attn.q_norm.weight`) : null,
      keyNorm: config.queryKeyNorm ? read(`${name}.self_attn.k_norm.weight`) : null,
      window: config.windows[layer] ?? null,
      modules: {
        q_proj: `${name}.self_attn.q_proj`,
        k_proj: `${name}.self_attn.k_proj`,
        v_proj: `${name}.self_attn.v_proj`,
        o_proj: `${name}.self_attn.o_proj`,
        gate_proj: `${name}.mlp.gate_proj`,
        up_proj: `${name}.mlp.up_proj`,
        down_proj: `${name}.mlp.down_proj`,
      },
    };
  });
  const embedding = read('model.embed_tokens.weight');
  const head = config.tiedEmbeddings ? embedding : read('lm_head.weight');
  const finalNorm = read('model.norm.weight');
  return { config, embedding, blocks, finalNorm, head, layers, frequencies: rotaryFrequencies(config) };
}

/** What the backward pass needs of one block, all [T, …]. */
interface BlockTrace {
  readonly input: Float64Array;
  readonly normed: Float64Array;
  /** q and k as projected, before their norms and before they are turned. */
  readonly projectedQuery: Float64Array;
  readonly projectedKey: Float64Array;
  readonly query: Float64Array;
  readonly key: Float64Array;
  readonly value: Float64Array;
  readonly attended: Float64Array;
  /** The input plus what attention adds. */
  readonly middle: Float64Array;
  readonly middleNormed: Float64Array;
  readonly gate: Float64Array;
  readonly up: Float64Array;
  readonly activated: Float64Array;
}

export interface Trace {
  readonly blocks: readonly BlockTrace[];
  /** [T, D] before the last norm */
  readonly output: Float64Array;
  /** [T, V] */
  readonly logits: Float64Array;
}

/** Masks of the trained branches of one example by module. */
export type Masks = (module: string) => Mask;

function layerOf({ layers }: Decoder, module: string): Linear {
  const layer = layers.get(module);
  if (!layer) throw new RangeError(`The model has no ${module}.`);
  return layer;
}

const shapeOf = ({ config }: Decoder, tokens: number, window: number | null) => ({
  tokens,
  heads: config.heads,
  kvHeads: config.kvHeads,
  headSize: config.headSize,
  window,
});

/** ids [T] → logits [T, V] and what led to them. */
export function forward(decoder: Decoder, ids: readonly number[], masks: Masks): Trace {
  const { config, embedding, frequencies, finalNorm, head } = decoder;
  const width = config.hiddenSize;
  let x: Float64Array = new Float64Array(ids.length * width);
  for (const [t, id] of ids.entries()) {
    if (!(id >= 0 && id < config.vocabSize)) throw new RangeError(`Token ${id} of ${config.vocabSize}.`);
    x.set(embedding.subarray(id * width, (id + 1) * width), t * width);
  }
  const blocks: BlockTrace[] = [];
  for (const block of decoder.blocks) {
    const through = (projection: Projection, from: Float64Array) => {
      const module = block.modules[projection];
      return linear(layerOf(decoder, module), from, masks(module));
    };
    const norm = (from: Float64Array, weight: Float64Array) => rmsNorm(from, weight, config.normEpsilon);
    const turned = (from: Float64Array, weight: Float64Array | null) =>
      rotate(weight ? norm(from, weight) : from, frequencies, ids.length, 1);

    const input = x;
    const normed = norm(input, block.inputNorm);
    const projectedQuery = through('q_proj', normed);
    const projectedKey = through('k_proj', normed);
    const query = turned(projectedQuery, block.queryNorm);
    const key = turned(projectedKey, block.keyNorm);
    const value = through('v_proj', normed);
    const attended = attention(query, key, value, shapeOf(decoder, ids.length, block.window));
    const middle = sumOf(input, through('o_proj', attended));
    const middleNormed = norm(middle, block.postNorm);
    const gate = through('gate_proj', middleNormed);
    const up = through('up_proj', middleNormed);
    const activated = swiglu(gate, up);
    x = sumOf(middle, through('down_proj', activated));
    const projections = { projectedQuery, projectedKey, query, key, value };
    blocks.push({ input, normed, ...projections, attended, middle, middleNormed, gate, up, activated });
  }
  const logits = timesTransposed(rmsNorm(x, finalNorm, config.normEpsilon), head, width);
  return { blocks, output: x, logits };
}

/** Gradients of the trained factors, in their shapes. */
export interface FactorGradients {
  readonly a: Float64Array;
  readonly b: Float64Array;
}

/** Gradients of every trained branch from dlogits [T, V]. */
export function backward(
  decoder: Decoder,
  trace: Trace,
  dlogits: Float64Array,
  masks: Masks,
): Map<string, FactorGradients> {
  const { config, frequencies, finalNorm, head } = decoder;
  const gradients = new Map<string, FactorGradients>();
  const normBack = (x: Float64Array, weight: Float64Array, dy: Float64Array) =>
    rmsNormGradient(x, weight, config.normEpsilon, dy);
  let dx = normBack(trace.output, finalNorm, times(dlogits, head, config.vocabSize));
  const tokens = dlogits.length / config.vocabSize;
  for (const [i, block] of [...decoder.blocks.entries()].reverse()) {
    const saved = trace.blocks[i];
    if (!saved) throw new RangeError(`Block ${i} was not traced.`);
    const back = (projection: Projection, x: Float64Array, dy: Float64Array): Float64Array => {
      const module = block.modules[projection];
      const { dx: through, factors } = linearGradient(layerOf(decoder, module), x, masks(module), dy);
      if (factors) gradients.set(module, factors);
      return through;
    };
    const turnedBack = (projected: Float64Array, weight: Float64Array | null, dy: Float64Array) => {
      const flat = rotate(dy, frequencies, tokens, -1);
      return weight ? normBack(projected, weight, flat) : flat;
    };

    const { dgate, dup } = swigluGradient(saved.gate, saved.up, back('down_proj', saved.activated, dx));
    const dMiddleNormed = sumOf(back('gate_proj', saved.middleNormed, dgate), back('up_proj', saved.middleNormed, dup));
    const dMiddle = sumOf(dx, normBack(saved.middle, block.postNorm, dMiddleNormed));
    const { dq, dk, dv } = attentionGradient(
      saved.query,
      saved.key,
      saved.value,
      back('o_proj', saved.attended, dMiddle),
      shapeOf(decoder, tokens, block.window),
    );
    const dNormed = sumOf(
      back('q_proj', saved.normed, turnedBack(saved.projectedQuery, block.queryNorm, dq)),
      back('k_proj', saved.normed, turnedBack(saved.projectedKey, block.keyNorm, dk)),
      back('v_proj', saved.normed, dv),
    );
    dx = sumOf(dMiddle, normBack(saved.input, block.inputNorm, dNormed));
  }
  return gradients;
}
