// Everything of a step before anything is allocated: its tensors, and its kernel calls in order. What is planned here is
// what the arena allocates, to the byte. Tensors that only live within a step share memory by their lives, so whether a
// block's activations are kept or recomputed is nothing but a question of which tensors the backward pass binds.
import type { LoraFactors, ModelConfig } from '@weft/formats';
import {
  ArenaPlan,
  embeddingForward,
  gradientNorm,
  type KernelCall,
  linearCrossEntropy,
  NORM_PARTIALS,
  reduceSum,
  rmsNormBackward,
  rmsNormForward,
  SLAB_BYTES,
  subTensor,
  type Tensor,
  type TensorRef,
  tailPenalty,
} from '@weft/wgsl-kernels';
import { TrainerError } from '../errors.ts';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import { ADAMW, hyperSizeOf, momentsOf, type Optimiser, updateCalls } from '../optim/optimiser.ts';
import { attendWithin, type BlockActivations, blockBackward, blockForward } from './block.ts';
import { GraphBuilder, type ModelWeights } from './builder.ts';
import { FactorLayout, type Trainable } from './factors.ts';

/** Shape of a step: rows of a batch, tokens of a row. */
export interface StepShape {
  readonly batch: number;
  readonly sequence: number;
}

export interface StepOptions {
  /** false: forward and loss alone. */
  readonly training: boolean;
  /** false: stop at the gradients. */
  readonly update?: boolean;
  /** Rows computed at once; divides `batch`. Gradients add up over the micro-batches of a step. */
  readonly microBatch?: number;
  /** Keep only each block's input, and compute the rest again in the backward pass (Chen et al. 2016). */
  readonly checkpoint?: boolean;
  readonly trainable?: Trainable;
  /** What a step updates the factors by; AdamW unless said. */
  readonly optimiser?: Optimiser;
  /** A penalty of λ·‖B[:, kept:]‖·‖A[kept:, :]‖ on every matrix with more directions than `kept`; not part of the loss reported. */
  readonly tail?: { readonly kept: number; readonly lambda: number };
  /** Share of the inputs of A that is dropped while training; 0 turns it off. */
  readonly dropout?: number;
  /** Frozen adapters whose products are added beside the one in training. */
  readonly sides?: readonly (readonly (AdaptedMatrix | LoraFactors)[])[];
  /** Largest tensor in bytes. */
  readonly slabLimit?: number;
}

/** What a batch is written to, and what a step reports. */
export interface StepTensors {
  readonly ids: TensorRef;
  /** i32 [N] */
  readonly targets: TensorRef;
  readonly positions: TensorRef;
  readonly querySpans: TensorRef;
  /** null where nothing is trained. */
  readonly keySpans: TensorRef | null;
  /** [1]: 1 / labelled targets of the whole batch. */
  readonly normaliser: TensorRef;
  readonly cos: TensorRef;
  readonly sin: TensorRef;
  /** Cross-entropy of every row of the last micro-batch [N]. */
  readonly lossRows: TensorRef;
  /** [128]: loss sum of the batch at 0, gradient norm and non-finite flag at 64. Read back after every step. */
  readonly report: TensorRef;
  readonly hyper: TensorRef | null;
  readonly dropoutSeed: TensorRef | null;
}

export interface StepLayout {
  readonly shape: StepShape;
  readonly microBatch: number;
  readonly checkpoint: boolean;
  readonly plan: ArenaPlan;
  readonly tensors: StepTensors;
  readonly optimiser: Optimiser;
  readonly factors: FactorLayout;
  readonly sides: readonly FactorLayout[];
  /** Zeroed when a step begins. */
  readonly cleared: readonly TensorRef[];
  /** Run for every micro-batch. */
  readonly micro: readonly KernelCall[];
  /** Run when all micro-batches are done. */
  readonly update: readonly KernelCall[];
}

export const REPORT_ELEMENTS = 128;
export const REPORT_NORM_AT = 64;

/** Readings on their way at once: two steps, and the one being recorded. */
export const READBACK_DEPTH = 3;

/** Logits of one chunk take at most this many bytes, unless 64 rows alone take more. */
const LOGITS_BYTES = 16 * 1024 * 1024;

/** Rows of a chunk of logits, a multiple of 64. */
function logitsRows({ rows, config, limit }: GraphBuilder): number {
  const fitting = Math.floor(Math.min(LOGITS_BYTES, limit) / (4 * config.vocabSize) / 64) * 64;
  return Math.max(64, Math.min(Math.ceil(rows / 64) * 64, fitting));
}

/** The language-model head: a matrix of its own, or the embedding table. */
export const headName = (config: ModelConfig): string =>
  config.tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';

const isTrainedLayer = (factors: FactorLayout, layer: number): boolean =>
  [...factors.places.keys()].some((module) => module.startsWith(`model.layers.${layer}.`) && factors.trains(module));

interface Forward {
  readonly blocks: readonly BlockActivations[];
  readonly last: Tensor;
  readonly normed: Tensor;
  readonly rstd: Tensor;
}

function forward(g: GraphBuilder): Forward {
  const { config, rows } = g;
  const stream = (i: number) => g.temporary(`stream.${i}`, [rows, config.hiddenSize]);
  let x = stream(0);
  g.push(embeddingForward({ ids: g.batch.ids, table: g.weights.matrix('model.embed_tokens.weight'), out: x }));
  const attend = attendWithin(g);
  const blocks: BlockActivations[] = [];
  for (let layer = 0; layer < config.layers; layer += 1) {
    const next = stream(layer + 1);
    blocks.push(blockForward(g, layer, x, { next, attend }));
    x = next;
  }
  const normed = g.temporary('normed', x.shape);
  const rstd = g.temporary('rstd', [rows]);
  g.push(
    rmsNormForward({ x, weight: g.weights.vector('model.norm.weight'), y: normed, rstd }, { eps: config.normEpsilon }),
  );
  return { blocks, last: x, normed, rstd };
}

function loss(g: GraphBuilder, { normed }: Forward, tensors: StepTensors, dnormed: Tensor | null): void {
  const { vocabSize } = g.config;
  g.push([
    ...linearCrossEntropy({
      hidden: normed,
      head: g.weights.matrix(headName(g.config)),
      labels: tensors.targets,
      logits: g.temporary('logits', [logitsRows(g), vocabSize]),
      lossRows: tensors.lossRows,
      normaliser: tensors.normaliser,
      ...(dnormed ? { dhidden: dnormed } : {}),
    }),
    ...reduceSum({ x: tensors.lossRows, out: subTensor(tensors.report, 0, [1]) }, { accumulate: true }),
  ]);
}

function backward(
  g: GraphBuilder,
  { blocks, last, rstd }: Forward,
  dnormed: Tensor,
  { factors, keySpans, checkpoint }: { factors: FactorLayout; keySpans: Tensor; checkpoint: boolean },
): void {
  const lowest = blocks.findIndex((_, layer) => isTrainedLayer(factors, layer));
  if (lowest < 0) return;
  const dstream = g.temporary('dstream', last.shape);
  const weight = g.weights.vector('model.norm.weight');
  g.push(rmsNormBackward({ x: last, weight, rstd, dy: dnormed, dx: dstream }, { accumulate: false }));
  const attend = attendWithin(g);
  for (let layer = blocks.length - 1; layer >= lowest; layer -= 1) {
    const block = blocks[layer];
    if (!block) continue;
    const kept = checkpoint ? blockForward(g, layer, block.x, { next: null, attend }) : block;
    blockBackward(g, layer, kept, { dstream, keySpans, isLowest: layer === lowest });
  }
}

/** The penalty's gradients, once a step. Throws TrainerError 'bad-settings' where a factor is not trained. */
const penalties = (factors: FactorLayout, { kept, lambda }: NonNullable<StepOptions['tail']>): KernelCall[] =>
  [...factors.places.values()].flatMap(({ matrix: { module, rank } }) => {
    if (rank <= kept) return [];
    const [a, b] = [factors.view(module, 'a', 'params'), factors.view(module, 'b', 'params')];
    const [da, db] = [factors.view(module, 'a', 'grads'), factors.view(module, 'b', 'grads')];
    if (a && b && da && db) return tailPenalty({ a, b, da, db }, { kept, lambda });
    throw new TrainerError('bad-settings', 'Pruning takes both factors; train A and B, or do not prune.');
  });

/** Norm of all gradients, and the optimiser on every trained factor. */
function update(
  { factors, tensors, optimiser }: Pick<StepLayout, 'factors' | 'tensors' | 'optimiser'>,
  partials: Tensor,
  options: StepOptions,
): KernelCall[] {
  const norm = subTensor(tensors.report, REPORT_NORM_AT, [2]);
  const { hyper } = tensors;
  return [
    ...gradientNorm({ grads: factors.tensors('grads'), partials, out: norm }),
    ...(options.update === false || !hyper
      ? []
      : factors.trained.flatMap(({ flat, training: { grads, moments } }) =>
          updateCalls(optimiser, { param: flat.params, grad: grads, moments }, { hyper, norm }),
        )),
  ];
}

/**
 * Plans a step of `matrices` on a model. Throws GpuError 'shape' when a tensor that cannot be cut is beyond `slabLimit`
 * bytes: attention's queries of one micro-batch, say.
 */
export function planStep(
  config: ModelConfig,
  weights: ModelWeights,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  options: StepOptions,
): StepLayout {
  const limit = options.slabLimit ?? SLAB_BYTES;
  const { training, microBatch = shape.batch, checkpoint = false, dropout = 0, optimiser = ADAMW } = options;
  const rows = microBatch * shape.sequence;
  const plan = new ArenaPlan(limit);
  const factors = FactorLayout.plan(plan, 'lora', matrices, {
    trainable: training ? (options.trainable ?? 'both') : null,
    moments: momentsOf(optimiser),
    limit,
  });
  const sides = (options.sides ?? []).map((side, i) =>
    FactorLayout.plan(plan, `side.${i}`, side, { trainable: null, limit }),
  );
  const trains = factors.trained.length > 0;
  const half = config.headSize / 2;
  const tensors: StepTensors = {
    ids: plan.tensor('ids', [rows], 'u32'),
    targets: plan.tensor('targets', [rows], 'i32'),
    positions: plan.tensor('positions', [rows], 'u32'),
    querySpans: plan.tensor('spans.query', [rows, 2], 'u32'),
    keySpans: trains ? plan.tensor('spans.key', [rows, 2], 'u32') : null,
    normaliser: plan.tensor('normaliser', [1]),
    cos: plan.tensor('rope.cos', [shape.sequence, half]),
    sin: plan.tensor('rope.sin', [shape.sequence, half]),
    lossRows: plan.tensor('loss.rows', [rows]),
    report: plan.tensor('report', [REPORT_ELEMENTS]),
    hyper: trains ? plan.tensor('hyper', [hyperSizeOf(optimiser)]) : null,
    dropoutSeed: training && dropout > 0 ? plan.tensor('dropout.seed', [2], 'u32') : null,
  };
  const g = new GraphBuilder({
    plan,
    config,
    weights,
    rows,
    batch: tensors,
    rope: tensors,
    adapters: [factors, ...sides],
    dropout: tensors.dropoutSeed ? { rate: dropout, seed: tensors.dropoutSeed } : null,
    limit,
  });
  const states = forward(g);
  const dnormed = trains ? g.temporary('dnormed', states.normed.shape) : null;
  loss(g, states, tensors, dnormed);
  if (dnormed && tensors.keySpans) backward(g, states, dnormed, { factors, keySpans: tensors.keySpans, checkpoint });
  const partials = trains ? plan.tensor('norm.partials', [2 * NORM_PARTIALS * factors.trained.length]) : null;
  plan.shareMemory(g.calls);
  return {
    shape,
    microBatch,
    checkpoint,
    plan,
    tensors,
    optimiser,
    factors,
    sides,
    cleared: [tensors.report, ...factors.tensors('grads')],
    micro: g.calls,
    update: partials
      ? [
          ...(options.tail ? penalties(factors, options.tail) : []),
          ...update({ factors, tensors, optimiser }, partials, options),
        ]
      : [],
  };
}
