// Every tensor of a training step or a forward pass, planned before anything is allocated. What this file plans is what
// the arena allocates, to the byte.
import type { ModelConfig } from '@weft/formats';
import { ADAMW_HYPER_SIZE, ArenaPlan, NORM_PARTIALS, type TensorRef } from '@weft/wgsl-kernels';
import type { AdaptedMatrix } from '../lora/adapter.ts';

/** Shape of a plan: rows of a batch, tokens of a row. */
export interface StepShape {
  readonly batch: number;
  readonly sequence: number;
}

/** Activations of one block; in a forward pass all blocks share theirs. */
export interface LayerRefs {
  /** Residual stream coming in [N, D]. */
  readonly x: TensorRef;
  readonly normed1: TensorRef;
  readonly rstd1: TensorRef;
  readonly q: TensorRef;
  readonly k: TensorRef;
  readonly v: TensorRef;
  readonly attention: TensorRef;
  readonly lse: TensorRef;
  /** Residual stream between attention and feed-forward [N, D]. */
  readonly middle: TensorRef;
  readonly normed2: TensorRef;
  readonly rstd2: TensorRef;
  readonly gate: TensorRef;
  readonly up: TensorRef;
  readonly activated: TensorRef;
  /** x·Aᵀ [N, r] of every adapted matrix, by module. */
  readonly xa: ReadonlyMap<string, TensorRef>;
}

/** Where a matrix's factors lie in the flat parameters, in elements; multiples of 64. */
export interface FactorPlace {
  readonly matrix: AdaptedMatrix;
  readonly a: number;
  readonly b: number;
}

export interface ForwardRefs {
  readonly ids: TensorRef;
  readonly targets: TensorRef;
  readonly normaliser: TensorRef;
  readonly cos: TensorRef;
  readonly sin: TensorRef;
  readonly layers: readonly LayerRefs[];
  /** Residual stream after the last block [N, D]. */
  readonly last: TensorRef;
  readonly normed: TensorRef;
  readonly rstd: TensorRef;
  /** What a block adds to the residual stream [N, D]. */
  readonly branch: TensorRef;
  /** Scratch [chunk, V]. */
  readonly logits: TensorRef;
  readonly lossRows: TensorRef;
  /** [128]: loss sum at 0, gradient norm and non-finite flag at 64. Read back after every step. */
  readonly report: TensorRef;
  /** All factors, flat; null without an adapter. */
  readonly params: TensorRef | null;
}

export interface BackwardRefs {
  readonly dstream: TensorRef;
  readonly dnormed: TensorRef;
  readonly dq: TensorRef;
  readonly dk: TensorRef;
  readonly dv: TensorRef;
  readonly dattention: TensorRef;
  readonly delta: TensorRef;
  readonly dactivated: TensorRef;
  readonly dgate: TensorRef;
  readonly dup: TensorRef;
  readonly dxa: TensorRef;
  readonly grads: TensorRef;
  readonly m: TensorRef;
  readonly v: TensorRef;
  readonly hyper: TensorRef;
  readonly partials: TensorRef;
}

export interface Layout {
  readonly shape: StepShape;
  readonly plan: ArenaPlan;
  readonly forward: ForwardRefs;
  /** null in a plan that only evaluates. */
  readonly backward: BackwardRefs | null;
  readonly places: ReadonlyMap<string, FactorPlace>;
  /** Elements of the flat parameters. */
  readonly parameters: number;
}

export const REPORT_ELEMENTS = 128;
export const REPORT_NORM_AT = 64;

/** Readings on their way at once: two steps, and the one being recorded. */
export const READBACK_DEPTH = 3;

/** Logits of one chunk take at most this many bytes, unless 64 rows alone take more. */
const LOGITS_BYTES = 16 * 1024 * 1024;

const alignElements = (elements: number): number => Math.ceil(elements / 64) * 64;

function placeFactors(matrices: readonly AdaptedMatrix[]): { places: Map<string, FactorPlace>; parameters: number } {
  const places = new Map<string, FactorPlace>();
  let parameters = 0;
  for (const matrix of matrices) {
    const a = parameters;
    const b = a + alignElements(matrix.rank * matrix.in);
    parameters = b + alignElements(matrix.out * matrix.rank);
    places.set(matrix.module, { matrix, a, b });
  }
  return { places, parameters };
}

/**
 * Plans a step over `shape.batch · shape.sequence` tokens. `training` keeps every block's activations and adds gradients and
 * optimiser state; otherwise blocks share their activations. Throws GpuError 'shape' when a tensor is beyond `slabLimit` bytes.
 */
export function planLayout(
  config: ModelConfig,
  matrices: readonly AdaptedMatrix[],
  shape: StepShape,
  options: { training: boolean; slabLimit?: number },
): Layout {
  const plan = new ArenaPlan(options.slabLimit);
  const { hiddenSize: d, intermediateSize: f, heads, kvHeads, headSize, vocabSize } = config;
  const rows = shape.batch * shape.sequence;
  const { places, parameters } = placeFactors(matrices);
  const planLayer = (name: string, layer: number | null): Omit<LayerRefs, 'x'> => {
    const tensor = (part: string, width: number) => plan.tensor(`${name}.${part}`, [rows, width]);
    const own = matrices.filter(({ module }) => layer === null || module.startsWith(`model.layers.${layer}.`));
    return {
      normed1: tensor('normed1', d),
      rstd1: plan.tensor(`${name}.rstd1`, [rows]),
      q: tensor('q', heads * headSize),
      k: tensor('k', kvHeads * headSize),
      v: tensor('v', kvHeads * headSize),
      attention: tensor('attention', heads * headSize),
      lse: tensor('lse', heads),
      middle: tensor('middle', d),
      normed2: tensor('normed2', d),
      rstd2: plan.tensor(`${name}.rstd2`, [rows]),
      gate: tensor('gate', f),
      up: tensor('up', f),
      activated: tensor('activated', f),
      xa:
        layer === null
          ? shareXa(own)
          : new Map(own.map(({ module, rank }) => [module, plan.tensor(`${name}.xa.${module}`, [rows, rank])])),
    };
  };
  // Blocks that share activations share one x·Aᵀ per rank.
  const shareXa = (own: readonly AdaptedMatrix[]): Map<string, TensorRef> => {
    const byRank = new Map<number, TensorRef>();
    return new Map(
      own.map(({ module, rank }) => {
        const ref = byRank.get(rank) ?? plan.tensor(`shared.xa.${rank}`, [rows, rank]);
        byRank.set(rank, ref);
        return [module, ref];
      }),
    );
  };
  const shared = options.training ? null : planLayer('shared', null);
  const streams = Array.from({ length: options.training ? config.layers + 1 : 2 }, (_, i) =>
    plan.tensor(`stream.${i}`, [rows, d]),
  );
  const stream = (i: number): TensorRef => streams[i % streams.length] as TensorRef;
  const layers = Array.from({ length: config.layers }, (_, i) => ({
    x: stream(i),
    ...(shared ?? planLayer(`layer.${i}`, i)),
  }));
  const chunk = Math.max(64, Math.min(Math.ceil(rows / 64) * 64, Math.floor(LOGITS_BYTES / (4 * vocabSize) / 64) * 64));
  const forward: ForwardRefs = {
    ids: plan.tensor('ids', [rows], 'u32'),
    targets: plan.tensor('targets', [rows], 'i32'),
    normaliser: plan.tensor('normaliser', [1]),
    cos: plan.tensor('rope.cos', [shape.sequence, headSize / 2]),
    sin: plan.tensor('rope.sin', [shape.sequence, headSize / 2]),
    layers,
    last: stream(config.layers),
    normed: plan.tensor('normed', [rows, d]),
    rstd: plan.tensor('rstd', [rows]),
    branch: plan.tensor('branch', [rows, d]),
    logits: plan.tensor('logits', [chunk, vocabSize]),
    lossRows: plan.tensor('loss.rows', [rows]),
    report: plan.tensor('report', [REPORT_ELEMENTS]),
    params: parameters > 0 ? plan.tensor('lora.params', [parameters]) : null,
  };
  if (!options.training) return { shape, plan, forward, backward: null, places, parameters };
  const widest = Math.max(1, ...matrices.map(({ rank }) => rank));
  const flat = (name: string) => plan.tensor(name, [Math.max(64, parameters)]);
  const backward: BackwardRefs = {
    dstream: plan.tensor('grad.stream', [rows, d]),
    dnormed: plan.tensor('grad.normed', [rows, d]),
    dq: plan.tensor('grad.q', [rows, heads * headSize]),
    dk: plan.tensor('grad.k', [rows, kvHeads * headSize]),
    dv: plan.tensor('grad.v', [rows, kvHeads * headSize]),
    dattention: plan.tensor('grad.attention', [rows, heads * headSize]),
    delta: plan.tensor('grad.delta', [rows, heads]),
    dactivated: plan.tensor('grad.activated', [rows, f]),
    dgate: plan.tensor('grad.gate', [rows, f]),
    dup: plan.tensor('grad.up', [rows, f]),
    dxa: plan.tensor('grad.xa', [rows * widest]),
    grads: flat('lora.grads'),
    m: flat('adam.m'),
    v: flat('adam.v'),
    hyper: plan.tensor('adam.hyper', [ADAMW_HYPER_SIZE]),
    partials: plan.tensor('norm.partials', [2 * NORM_PARTIALS]),
  };
  return { shape, plan, forward, backward, places, parameters };
}
