// Grouped-query attention of rows of queries over rows of keys and values. Who sees whom is a span of rows for each query
// (and each key, in the backward pass): causal batches, padding, packed examples and a key-value cache are all spans.

import { foldWorkgroups, type KernelCall, type KernelVariant } from '../../runtime/call.ts';
import { GpuError } from '../../runtime/errors.ts';
import { layOutParams, paramOffset } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { invocationWorkgroups } from '../elementwise.ts';
import { type AttentionVariant, type AttentionVariantName, shadersFor } from './shaders.ts';

export { type AttentionVariantName, attentionShaders } from './shaders.ts';

export interface AttentionSizes {
  readonly heads: number;
  /** Divides `heads`. */
  readonly kvHeads: number;
  readonly headSize: number;
  /** Keys a query sees at most, the last of its span; null for all of them. */
  readonly window: number | null;
  /** Keys a query sees on average, for the cost alone: spans are known to the GPU only. Half of all when left out. */
  readonly meanKeys?: number;
  /** For tests; when left out, sizes and the plan's device decide, as they do in a backward pass that there is none for. */
  readonly variant?: AttentionVariantName;
}

/**
 * Variants there are for heads of this size. `quad` needs `subgroups`. All give the same results but for rounding.
 */
export function attentionVariants(headSize: number): AttentionVariantName[] {
  const { many, few } = shadersFor(headSize);
  return [...many, ...few].map(({ variant }) => variant);
}

export interface AttentionForward {
  /** [Nq, heads · headSize] */
  readonly q: Tensor;
  /** [Nk, kvHeads · headSize] */
  readonly k: Tensor;
  /** [Nk, kvHeads · headSize] */
  readonly v: Tensor;
  /** u32 [Nq, 2]: first and last row of k that each query sees; nothing, and out 0, where the last comes before the first. */
  readonly spans: Tensor;
  /** [Nq, heads · headSize], written. */
  readonly out: Tensor;
  /** [Nq, heads], written: log Σ exp of each query's scaled scores. */
  readonly lse: Tensor;
}

export interface AttentionBackward extends AttentionForward {
  /** u32 [Nk, 2]: first and last row of q that sees each key, the inverse of `spans` without the window. */
  readonly keySpans: Tensor;
  /** [Nq, heads · headSize] */
  readonly dout: Tensor;
  /** Scratch [Nq, heads, 2]. */
  readonly stats: Tensor;
  /** As q, written. */
  readonly dq: Tensor;
  /** As k, written. */
  readonly dk: Tensor;
  /** As v, written. */
  readonly dv: Tensor;
}

/** Larger heads are not met in the models we know; their sums would hardly fit a GPU's registers. */
const MAX_HEAD_SIZE = 256;

/** Stands for "no window". */
const ALL_KEYS = 0xffff_ffff;

/** With as many queries or fewer, tiles of them would be all but empty. */
const FEW_QUERIES = 8;

/** Checks shapes; gives shaders and uniforms of every entry point, and what all scores cost. */
function describe(kernel: string, { q, k, v, spans, out, lse }: AttentionForward, sizes: AttentionSizes) {
  const { heads, kvHeads, headSize, window } = sizes;
  if (heads % kvHeads !== 0)
    throw new GpuError('shape', `${kernel}: ${heads} heads cannot share ${kvHeads} key-value heads.`);
  if (headSize > MAX_HEAD_SIZE)
    throw new GpuError('shape', `${kernel}: a head of ${headSize} is larger than ${MAX_HEAD_SIZE}.`);
  if (window !== null && !(Number.isInteger(window) && window > 0))
    throw new GpuError('shape', `${kernel}: a window of ${window} keys is none; leave it null for all keys.`);
  const [queries] = matrixShape(kernel, 'q', q);
  const [keys] = matrixShape(kernel, 'k', k);
  expectShape(kernel, 'q', q, [queries, heads * headSize]);
  expectShape(kernel, 'k', k, [keys, kvHeads * headSize]);
  expectShape(kernel, 'v', v, k.shape);
  expectShape(kernel, 'spans', spans, [queries, 2]);
  expectShape(kernel, 'out', out, q.shape);
  expectShape(kernel, 'lse', lse, [queries, heads]);
  const { parts, rowStats } = shadersFor(headSize);
  const meanKeys = Math.min(sizes.meanKeys ?? keys / 2, window ?? keys);
  return {
    queries,
    keys,
    common: {
      // All shaders declare the same uniform.
      uniforms: layOutParams(rowStats, {
        queries,
        keys,
        heads,
        kvHeads,
        window: window ?? ALL_KEYS,
        parts,
        firstGroup: 0,
        scale: 1 / Math.sqrt(headSize),
      }),
      firstGroup: paramOffset(rowStats, 'firstGroup'),
    },
    /** Scores, and multiplications of one product of all of them. */
    scores: Math.round(lse.elements * meanKeys),
    products: Math.round(q.elements * meanKeys),
    variants: (entryPoint: string, rows: number, rowHeads: number) =>
      variantsOf(kernel, entryPoint, { rows, heads: rowHeads }, sizes),
  };
}

/** How an entry point runs over `rows` rows of `heads` heads, as any variant. Throws GpuError 'shape' where there is none. */
function variantsOf(
  kernel: string,
  entryPoint: string,
  { rows, heads }: { rows: number; heads: number },
  { headSize, variant: wanted }: AttentionSizes,
): Pick<KernelCall, 'shader' | 'entryPoint' | 'workgroups' | 'variants' | 'tuningClass'> {
  const { many, few } = shadersFor(headSize);
  const place = ({ variant, suits, shader, workgroups }: AttentionVariant): KernelVariant => ({
    ...{ variant, suits, shader, entryPoint },
    workgroups: foldWorkgroups(workgroups(rows, heads)),
  });
  const isForward = entryPoint === 'forward';
  const fixed = wanted !== undefined && (isForward || !few.some(({ variant }) => variant === wanted));
  const fitting = isForward && rows <= FEW_QUERIES ? few : many;
  const variants = (fixed ? [...many, ...few].filter(({ variant }) => variant === wanted) : fitting).map(place);
  const [first] = variants;
  if (!first) throw new GpuError('shape', `${kernel}: there is no variant ${wanted} for heads of ${headSize}.`);
  const { shader, workgroups } = first;
  if (fixed) return { shader, entryPoint, workgroups };
  // Few rows leave many invocations of some variants idle, so they are a class of their own.
  const amount = 2 ** Math.ceil(Math.log2(rows));
  const tuningClass = `attention ${entryPoint}, ${heads} heads of ${headSize}, ${amount} rows`;
  return { shader, entryPoint, workgroups, variants, tuningClass };
}

/**
 * out = softmax(q·kᵀ/√headSize)·v over the keys each query sees: rows max(first, last − window + 1) … last of its span.
 * Rows between two that are seen may be read too, and must then hold numbers. Throws GpuError 'shape'.
 */
export function attentionForward(tensors: AttentionForward, sizes: AttentionSizes): KernelCall[] {
  const { common, queries, scores, products, variants } = describe('attention-forward', tensors, sizes);
  const { q, k, v, spans, out, lse } = tensors;
  return [
    {
      name: 'attention-forward',
      ...common,
      ...variants('forward', queries, sizes.heads),
      bindings: [q, k, v, spans, out, lse],
      flops: 4 * products,
      exps: scores,
      bytes: q.bytes + k.bytes + v.bytes + spans.bytes + out.bytes + lse.bytes,
    },
  ];
}

/**
 * dq, dk, dv from dout; out and lse as the forward pass left them. A key is seen by rows first … min(last, first + window
 * − 1) of q, (first, last) its key span, so a window needs a query to stand `n` rows behind the first that sees a key when
 * it stands `n` keys behind it, as in a batch. Rows between two that see or are seen may be read too, and must then hold
 * numbers. Throws GpuError 'shape'.
 */
export function attentionBackward(tensors: AttentionBackward, sizes: AttentionSizes): KernelCall[] {
  const kernel = 'attention-backward';
  const { common, queries, keys, scores, products, variants } = describe(kernel, tensors, sizes);
  const { q, k, v, spans, keySpans, out, lse, dout, stats, dq, dk, dv } = tensors;
  expectShape(kernel, 'keySpans', keySpans, [keys, 2]);
  expectShape(kernel, 'dout', dout, q.shape);
  expectShape(kernel, 'stats', stats, [...lse.shape, 2]);
  expectShape(kernel, 'dq', dq, q.shape);
  expectShape(kernel, 'dk', dk, k.shape);
  expectShape(kernel, 'dv', dv, v.shape);
  const read = q.bytes + k.bytes + v.bytes + dout.bytes + stats.bytes;
  return [
    {
      name: 'attention-stats',
      ...common,
      shader: shadersFor(sizes.headSize).rowStats,
      entryPoint: 'row_stats',
      bindingSlots: [5, 6, 7, 8],
      bindings: [out, lse, dout, stats],
      workgroups: invocationWorkgroups(lse.elements),
      flops: 2 * out.elements,
      bytes: out.bytes + lse.bytes + dout.bytes + stats.bytes,
    },
    {
      name: 'attention-backward-query',
      ...common,
      ...variants('backward_query', queries, sizes.heads),
      bindingSlots: [1, 2, 3, 4, 5, 7, 8],
      bindings: [q, k, v, spans, dq, dout, stats],
      flops: 6 * products,
      exps: scores,
      bytes: read + spans.bytes + dq.bytes,
    },
    {
      name: 'attention-backward-key',
      ...common,
      ...variants('backward_key', keys, sizes.kvHeads),
      bindingSlots: [1, 2, 3, 4, 5, 7, 8, 9],
      bindings: [q, k, v, keySpans, dk, dout, stats, dv],
      flops: 8 * products,
      exps: scores,
      bytes: read + keySpans.bytes + dk.bytes + dv.bytes,
    },
  ];
}
