// What every library computes here: a Llama with LoRA factors on all seven projections, drawn from a seed, and one batch of
// random tokens. Weights, factors, tokens and optimiser settings are the same for us and for the peers, so losses must agree.
import { type LoraAdapter, type ModelConfig, modelTensors, parameterCount } from '@weft/formats';
import { type BaseModel, type Batch, initialAdapter, plainSpec, seededRandom } from '@weft/trainer';
import { type AdamwHyper, ropeTables } from '@weft/wgsl-kernels';

/** A model's shape and the batch a step learns from. */
export interface StepWorkload {
  /** As rows are named after it. */
  readonly name: string;
  readonly config: ModelConfig;
  readonly batch: number;
  readonly sequence: number;
  readonly rank: number;
}

const llama = (
  sizes: Pick<
    ModelConfig,
    'hiddenSize' | 'intermediateSize' | 'layers' | 'heads' | 'kvHeads' | 'headSize' | 'vocabSize' | 'maxPositions'
  >,
): ModelConfig => ({
  architecture: 'LlamaForCausalLM',
  normEpsilon: 1e-5,
  ropeTheta: 10_000,
  ropeScaling: null,
  biases: [],
  queryKeyNorm: false,
  windows: Array.from({ length: sizes.layers }, () => null),
  tiedEmbeddings: true,
  bosTokenId: 1,
  eosTokenIds: [2],
  ...sizes,
});

const stories15M = (vocabSize: number): ModelConfig =>
  llama({
    hiddenSize: 288,
    intermediateSize: 768,
    layers: 6,
    heads: 6,
    kvHeads: 6,
    headSize: 48,
    vocabSize,
    maxPositions: 256,
  });

/** The shape of stories260K, whose real weights the rows do not need. */
const stories260K = llama({
  hiddenSize: 64,
  intermediateSize: 172,
  layers: 5,
  heads: 8,
  kvHeads: 4,
  headSize: 8,
  vocabSize: 512,
  maxPositions: 512,
});

/** The steps that are measured, by row name. */
export const WORKLOADS = {
  's15-32k': { name: 'S15, vocabulary 32,000', config: stories15M(32_000), batch: 1, sequence: 256, rank: 8 },
  's15-4k': { name: 'S15, vocabulary 4,096', config: stories15M(4_096), batch: 1, sequence: 256, rank: 8 },
  s026: { name: 'S0.26, batch 8', config: stories260K, batch: 8, sequence: 128, rank: 8 },
  /** For the first look whether libraries agree; in no table. */
  tiny: {
    name: 'tiny',
    config: llama({
      hiddenSize: 32,
      intermediateSize: 48,
      layers: 2,
      heads: 4,
      kvHeads: 2,
      headSize: 8,
      vocabSize: 64,
      maxPositions: 64,
    }),
    batch: 2,
    sequence: 16,
    rank: 4,
  },
} as const satisfies Record<string, StepWorkload>;

export type WorkloadName = keyof typeof WORKLOADS;

/** Of step `step`, 1 for the first. A high rate, so that a few steps move the loss by far more than libraries may differ. */
export const hyperAt = (step: number): AdamwHyper => ({
  learningRate: 1e-2,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0.01,
  step,
  maxGradNorm: 0,
});

/** Everything a library is given: plain arrays, shapes as in Hugging Face's files. */
export interface StepData {
  readonly workload: StepWorkload;
  /** Frozen, by Hugging Face name. */
  readonly weights: ReadonlyMap<string, { readonly values: Float32Array; readonly shape: readonly number[] }>;
  /** A random, B zero. */
  readonly adapter: LoraAdapter;
  /** [B · T] */
  readonly ids: Uint32Array;
  /** [B · T]: the token after each; all are learned from. */
  readonly targets: Int32Array;
  /** [T, headSize/2] */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

const SEED = 'weft bench';
/** Standard deviation of matrices, as in a model before training. */
const DEVIATION = 0.02;

function drawn(name: string, shape: readonly number[]): Float32Array {
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
  if (shape.length === 1) return values.fill(1);
  const random = seededRandom(SEED, name);
  const bound = DEVIATION * Math.sqrt(3);
  for (let i = 0; i < values.length; i += 1) values[i] = bound * (2 * random.uniform() - 1);
  return values;
}

export function stepData(workload: StepWorkload): StepData {
  const { config, batch, sequence, rank } = workload;
  const weights = new Map(
    modelTensors(config).map(({ name, shape }) => [name, { values: drawn(name, shape), shape }] as const),
  );
  const random = seededRandom(SEED, 'tokens');
  const tokens = Array.from({ length: batch }, () =>
    Array.from({ length: sequence + 1 }, () => random.below(config.vocabSize)),
  );
  return {
    workload,
    weights,
    adapter: initialAdapter(config, plainSpec(rank), SEED),
    ids: Uint32Array.from(tokens.flatMap((row) => row.slice(0, -1))),
    targets: Int32Array.from(tokens.flatMap((row) => row.slice(1))),
    ...ropeTables(sequence, config.headSize, { theta: config.ropeTheta, scaling: config.ropeScaling }),
  };
}

/** The model as the trainer opens it, out of memory. */
export const baseModel = ({ workload, weights }: Pick<StepData, 'workload' | 'weights'>): BaseModel => ({
  config: workload.config,
  tokenizer: null,
  checkpoint: {
    config: workload.config,
    dtypeOf: () => 'F32',
    read(name, first, count) {
      const weight = weights.get(name);
      return weight
        ? Promise.resolve(weight.values.subarray(first, first + count))
        : Promise.reject(new RangeError(`The model has no ${name}.`));
    },
  },
});

/** The batch as the trainer takes it: causal rows, every position learned from. */
export function batchOf({ workload: { batch, sequence }, ids, targets }: StepData): Batch {
  const rows = batch * sequence;
  const positions = Uint32Array.from({ length: rows }, (_, n) => n % sequence);
  const querySpans = new Uint32Array(2 * rows);
  const keySpans = new Uint32Array(2 * rows);
  for (let n = 0; n < rows; n += 1) {
    const first = n - (n % sequence);
    querySpans.set([first, n], 2 * n);
    keySpans.set([n, first + sequence - 1], 2 * n);
  }
  return { ids, targets, positions, querySpans, keySpans, targetTokens: rows, tokens: rows, examples: batch };
}

/**
 * Floating-point operations of the matrix products of one step, forward and backward, nothing computed twice (a
 * multiply-add is two): base products forward and to their inputs, LoRA products forward, to their input and to both
 * factors, causal attention, and the head. The first block's q, k and v hand no gradient down. The numerator of LoRA-MFU.
 */
export function modelFlops({ config, batch, sequence, rank }: StepWorkload): number {
  const { hiddenSize: width, intermediateSize: wide, layers, heads, kvHeads, headSize, vocabSize } = config;
  const rows = batch * sequence;
  const [all, kv] = [heads * headSize, kvHeads * headSize];
  const inputs: [columns: number, out: number][] = [
    [width, all],
    [width, kv],
    [width, kv],
  ];
  const others: [columns: number, out: number][] = [
    [all, width],
    [width, wide],
    [width, wide],
    [wide, width],
  ];
  const forward = ([columns, out]: [number, number]) => 2 * rows * (columns * out + rank * (columns + out));
  const toInput = forward;
  // Of B from dy and xa; of A from dxa and x. dxa is counted in `toInput`, where it is on the way.
  const toFactors = ([columns, out]: [number, number]) => 2 * rows * rank * (columns + out);
  const sum = (of: (shape: [number, number]) => number, shapes: [number, number][]) =>
    shapes.reduce((total, shape) => total + of(shape), 0);
  const block = sum(forward, [...inputs, ...others]) + sum(toFactors, [...inputs, ...others]) + sum(toInput, others);
  const dxaAlone = sum(([, out]) => 2 * rows * rank * out, inputs);
  const meanKeys = (sequence + 1) / 2;
  const attention = 4 * rows * meanKeys * all * 3;
  const head = 2 * rows * width * vocabSize * 2;
  return layers * (block + attention) + (layers - 1) * sum(toInput, inputs) + dxaAlone + head;
}

export const tokensOf = ({ batch, sequence }: StepWorkload): number => batch * sequence;
export const parametersOf = ({ config }: StepWorkload): number => parameterCount(config);
