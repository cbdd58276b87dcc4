// Causal grouped-query attention on rows [N, heads · headSize], N = batch · sequence.

import { GpuError } from '../../runtime/errors.ts';
import type { KernelCall } from '../../runtime/plan.ts';
import { layOutParams, type ShaderSource } from '../../runtime/shader.ts';
import { expectShape, type Tensor } from '../../runtime/tensor.ts';
import { invocationWorkgroups } from '../elementwise.ts';
import code from './attention.wgsl?raw';

/** Heads whose size is a multiple of four are handled four elements at a time. */
const VECTOR_PART = 'alias Part = vec4f;\nfn part_dot(a: Part, b: Part) -> f32 { return dot(a, b); }\n';
const SCALAR_PART = 'alias Part = f32;\nfn part_dot(a: Part, b: Part) -> f32 { return a * b; }\n';

const HEAD_LOOP = /for \(var d = 0u; d < HEAD_SIZE; d\+\+\) \{([^{}]*)\}/g;
const HEAD_ARRAY = /var (\w+): array<Part, HEAD_SIZE>;/g;

/** Written out further, a shader takes longer to compile than it saves: at 32 parts already some 15 seconds more. */
const MOST_PARTS_WRITTEN_OUT = 16;

/**
 * The shader with its loops over a head's parts written out and its arrays of parts as variables: not every compiler
 * unrolls, and an array that is indexed at run time lives in memory instead of registers. Large heads stay as they are.
 */
function unrollHead(text: string, parts: number): string {
  if (parts > MOST_PARTS_WRITTEN_OUT) return text.replaceAll('HEAD_SIZE', `${parts}u`);
  const each = (write: (part: number) => string) => Array.from({ length: parts }, (_, part) => write(part)).join('');
  return text
    .replace(HEAD_ARRAY, (_, name: string) => each((part) => `var ${name}_${part}: Part; `))
    .replace(HEAD_LOOP, (_, body: string) =>
      each((part) => body.replace(/\b(\w+)\[d\]/g, `$1_${part}`).replace(/\bd\b/g, `${part}u`)),
    )
    .replaceAll('HEAD_SIZE', `${parts}u`);
}

const shaders = new Map<number, ShaderSource>();

/** The shader for heads of this size; one text a size. */
export function attentionShader(headSize: number): ShaderSource {
  const known = shaders.get(headSize);
  if (known) return known;
  const vectors = headSize % 4 === 0;
  const text = (vectors ? VECTOR_PART : SCALAR_PART) + unrollHead(code, vectors ? headSize / 4 : headSize);
  const shader = { name: `attention-${headSize}`, code: text };
  shaders.set(headSize, shader);
  return shader;
}

export interface AttentionSizes {
  readonly batch: number;
  readonly sequence: number;
  readonly heads: number;
  /** Divides `heads`. */
  readonly kvHeads: number;
  readonly headSize: number;
}

export interface AttentionForward {
  /** [N, heads · headSize] */
  readonly q: Tensor;
  /** [N, kvHeads · headSize] */
  readonly k: Tensor;
  /** [N, kvHeads · headSize] */
  readonly v: Tensor;
  /** [N, heads · headSize], written. */
  readonly out: Tensor;
  /** [N, heads], written: log Σ exp of each query's scaled scores. */
  readonly lse: Tensor;
}

export interface AttentionBackward extends AttentionForward {
  /** [N, heads · headSize] */
  readonly dout: Tensor;
  /** Scratch [N, heads]. */
  readonly delta: Tensor;
  readonly dq: Tensor;
  readonly dk: Tensor;
  readonly dv: Tensor;
}

/** Registers hold a few vectors of a head; larger heads are not met in the models we know. */
const MAX_HEAD_SIZE = 256;

function check(kernel: string, { q, k, v, out, lse }: AttentionForward, sizes: AttentionSizes): void {
  const { batch, sequence, heads, kvHeads, headSize } = sizes;
  if (heads % kvHeads !== 0)
    throw new GpuError('shape', `${kernel}: ${heads} heads cannot share ${kvHeads} key-value heads.`);
  if (headSize > MAX_HEAD_SIZE)
    throw new GpuError('shape', `${kernel}: a head of ${headSize} is larger than ${MAX_HEAD_SIZE}.`);
  const rows = batch * sequence;
  expectShape(kernel, 'q', q, [rows, heads * headSize]);
  expectShape(kernel, 'k', k, [rows, kvHeads * headSize]);
  expectShape(kernel, 'v', v, [rows, kvHeads * headSize]);
  expectShape(kernel, 'out', out, [rows, heads * headSize]);
  expectShape(kernel, 'lse', lse, [rows, heads]);
}

function describe(sizes: AttentionSizes) {
  const { headSize, ...rest } = sizes;
  const shader = attentionShader(headSize);
  return { shader, uniforms: layOutParams(shader, { ...rest, scale: 1 / Math.sqrt(headSize) }) };
}

/** Query–key pairs under the causal mask, times heads, times head size. */
const work = ({ batch, sequence, heads, headSize }: AttentionSizes) =>
  (batch * heads * headSize * sequence * (sequence + 1)) / 2;

/** out = softmax(q·kᵀ/√headSize, causal)·v. Throws GpuError 'shape'. */
export function attentionForward(tensors: AttentionForward, sizes: AttentionSizes): KernelCall[] {
  check('attention-forward', tensors, sizes);
  const { q, k, v, out, lse } = tensors;
  return [
    {
      name: 'attention-forward',
      ...describe(sizes),
      entryPoint: 'forward',
      bindings: [q, k, v, lse, out],
      workgroups: invocationWorkgroups(lse.elements),
      flops: 4 * work(sizes),
      bytes: q.bytes + k.bytes + v.bytes + out.bytes + lse.bytes,
    },
  ];
}

/** dq, dk, dv from dout; out and lse as the forward pass left them. Throws GpuError 'shape'. */
export function attentionBackward(tensors: AttentionBackward, sizes: AttentionSizes): KernelCall[] {
  check('attention-backward', tensors, sizes);
  const { q, k, v, out, lse, dout, delta, dq, dk, dv } = tensors;
  expectShape('attention-backward', 'dout', dout, q.shape);
  expectShape('attention-backward', 'dq', dq, q.shape);
  expectShape('attention-backward', 'dk', dk, k.shape);
  expectShape('attention-backward', 'dv', dv, v.shape);
  expectShape('attention-backward', 'delta', delta, lse.shape);
  const common = describe(sizes);
  const read = q.bytes + k.bytes + v.bytes + lse.bytes + dout.bytes + delta.bytes;
  return [
    {
      name: 'attention-delta',
      ...common,
      entryPoint: 'row_delta',
      bindingSlots: [5, 6, 7],
      bindings: [out, dout, delta],
      workgroups: invocationWorkgroups(lse.elements),
      flops: 2 * out.elements,
      bytes: out.bytes + dout.bytes + delta.bytes,
    },
    {
      name: 'attention-backward-query',
      ...common,
      entryPoint: 'backward_query',
      bindings: [q, k, v, lse, dq, dout, delta],
      workgroups: invocationWorkgroups(lse.elements),
      flops: 6 * work(sizes),
      bytes: read + dq.bytes,
    },
    {
      name: 'attention-backward-key',
      ...common,
      entryPoint: 'backward_key',
      bindings: [q, k, v, lse, dk, dout, delta, dv],
      workgroups: invocationWorkgroups(k.elements / sizes.headSize),
      flops: 8 * work(sizes),
      bytes: read + dk.bytes + dv.bytes,
    },
  ];
}
