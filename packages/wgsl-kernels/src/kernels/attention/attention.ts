// Grouped-query attention of rows of queries over rows of keys and values. Who sees whom is a span of rows for each query
// (and each key, in the backward pass): causal batches, padding, packed examples and a key-value cache are all spans.

import { GpuError } from '../../runtime/errors.ts';
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, matrixShape, type Tensor } from '../../runtime/tensor.ts';
import { invocationWorkgroups } from '../elementwise.ts';
import code from './attention.wgsl?raw';
import fourKeys from './four.wgsl?raw';
import oneKey from './one.wgsl?raw';

/** What a head is cut into: the longest vectors that divide it. */
const PARTS = [
  { width: 4, type: 'vec4f', product: 'dot(a, b)' },
  { width: 2, type: 'vec2f', product: 'dot(a, b)' },
  { width: 1, type: 'f32', product: 'a * b' },
] as const;

/**
 * Heads of as many parts are written out and handled one key at a time. Beyond, a looped head with four keys at a time is
 * about as fast and compiles within seconds at every size; written out, 16 parts take lavapipe half a minute to compile and
 * 24 two minutes.
 */
const MOST_PARTS_WRITTEN_OUT = 4;

const HEAD_LOOP = /for \(var d = 0u; d < params\.parts; d\+\+\) \{([^{}]*)\}/g;
const HEAD_ARRAY = /var (\w+): array<Part, PARTS>;/g;

/**
 * The shader with its loops over a head's parts written out and its arrays of parts as variables: not every compiler
 * unrolls, and an array that is indexed at run time lives in memory instead of registers.
 */
function writeOut(text: string, parts: number): string {
  const arrays = [...text.matchAll(HEAD_ARRAY)].map(([, name]) => name);
  const element = new RegExp(`\\b(${arrays.join('|')})\\[d\\]`, 'g');
  const each = (write: (part: number) => string) => Array.from({ length: parts }, (_, part) => write(part)).join('');
  return text
    .replace(HEAD_ARRAY, (_, name: string) => each((part) => `var ${name}_${part}: Part; `))
    .replace(HEAD_LOOP, (_, body: string) =>
      each((part) => body.replace(element, `$1_${part}`).replace(/\bd\b/g, `${part}u`)),
    );
}

interface AttentionShader extends ShaderSource {
  /** Parts of a head. */
  readonly parts: number;
}

const shaders = new Map<number, AttentionShader>();

/** The shader for heads of this size; one text a size. */
export function attentionShader(headSize: number): AttentionShader {
  const known = shaders.get(headSize);
  if (known) return known;
  const { width, type, product } = PARTS.find((part) => headSize % part.width === 0) ?? PARTS[2];
  const parts = headSize / width;
  const declarations = `alias Part = ${type};
const PARTS = ${parts}u;
fn part_dot(a: Part, b: Part) -> f32 { return ${product}; }
`;
  const small = parts <= MOST_PARTS_WRITTEN_OUT;
  const text = declarations + (small ? oneKey + writeOut(code, parts) : fourKeys + code);
  const shader = { name: `attention-${headSize}`, code: text, parts };
  shaders.set(headSize, shader);
  return shader;
}

export interface AttentionSizes {
  readonly heads: number;
  /** Divides `heads`. */
  readonly kvHeads: number;
  readonly headSize: number;
  /** Keys a query sees at most, the last of its span; null for all of them. */
  readonly window: number | null;
  /** Keys a query sees on average, for the cost alone: spans are known to the GPU only. Half of all when left out. */
  readonly meanKeys?: number;
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

/** Checks shapes; gives shader and uniforms of every entry point, and multiplications of one product of all scores. */
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
  const shader = attentionShader(headSize);
  const scale = 1 / Math.sqrt(headSize);
  const meanKeys = Math.min(sizes.meanKeys ?? keys / 2, window ?? keys);
  return {
    common: {
      shader,
      uniforms: layOutParams(shader, {
        queries,
        keys,
        heads,
        kvHeads,
        window: window ?? ALL_KEYS,
        parts: shader.parts,
        scale,
      }),
    },
    products: Math.round(q.elements * meanKeys),
  };
}

/**
 * out = softmax(q·kᵀ/√headSize)·v over the keys each query sees: rows max(first, last − window + 1) … last of its span.
 * Throws GpuError 'shape'.
 */
export function attentionForward(tensors: AttentionForward, sizes: AttentionSizes): KernelCall[] {
  const { common, products } = describe('attention-forward', tensors, sizes);
  const { q, k, v, spans, out, lse } = tensors;
  return [
    {
      name: 'attention-forward',
      ...common,
      entryPoint: 'forward',
      bindings: [q, k, v, spans, out, lse],
      workgroups: invocationWorkgroups(lse.elements),
      flops: 4 * products,
      bytes: q.bytes + k.bytes + v.bytes + spans.bytes + out.bytes + lse.bytes,
    },
  ];
}

/**
 * dq, dk, dv from dout; out and lse as the forward pass left them. A key is seen by rows first … min(last, first + window
 * − 1) of q, (first, last) its key span, so a window needs a query to stand `n` rows behind the first that sees a key when
 * it stands `n` keys behind it, as in a batch. Throws GpuError 'shape'.
 */
export function attentionBackward(tensors: AttentionBackward, sizes: AttentionSizes): KernelCall[] {
  const kernel = 'attention-backward';
  const { common, products } = describe(kernel, tensors, sizes);
  const { q, k, v, spans, keySpans, out, lse, dout, stats, dq, dk, dv } = tensors;
  expectShape(kernel, 'keySpans', keySpans, [k.shape[0] ?? 0, 2]);
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
      entryPoint: 'backward_query',
      bindingSlots: [1, 2, 3, 4, 5, 7, 8],
      bindings: [q, k, v, spans, dq, dout, stats],
      workgroups: invocationWorkgroups(lse.elements),
      flops: 6 * products,
      bytes: read + spans.bytes + dq.bytes,
    },
    {
      name: 'attention-backward-key',
      ...common,
      entryPoint: 'backward_key',
      bindingSlots: [1, 2, 3, 4, 5, 7, 8, 9],
      bindings: [q, k, v, keySpans, dk, dout, stats, dv],
      workgroups: invocationWorkgroups(k.elements / sizes.headSize),
      flops: 8 * products,
      bytes: read + keySpans.bytes + dk.bytes + dv.bytes,
    },
  ];
}
