// @jax-js/jax doing what we do, as its README says it is fastest: a whole step inside one jit, with valueAndGrad, on its webgpu
// device. Its arrays are reference-counted: a call owns its arguments, `.ref` keeps one for another use.
import {
  blockUntilReady,
  defaultDevice,
  getWebGPUDevice,
  init,
  jit,
  nn,
  numpy as np,
  tree,
  valueAndGrad,
} from '@jax-js/jax';
import type { ModelConfig } from '@weft/formats';
import { hyperAt, type StepData } from '../workload.ts';
import { type Library, type MatmulShape, transposed } from './peer.ts';

/** LoRA factors, gradients or moments by `<module>.A` and `<module>.B`. */
type Factors = Record<string, np.Array>;
type Frozen = Record<string, np.Array>;

/** Float32 from plain values, of a shape. */
const arrayOf = (values: Float32Array | Int32Array, shape: readonly number[]): np.Array =>
  np.array(values.slice()).reshape([...shape]);

const take = (of: Record<string, np.Array>, name: string): np.Array => {
  const found = of[name];
  if (!found) throw new RangeError(`The step has no ${name}.`);
  return found.ref;
};

function rmsNorm(x: np.Array, weight: np.Array, eps: number): np.Array {
  const meanSquare = np.square(x.ref).mean(-1, { keepdims: true });
  return x.mul(np.reciprocal(np.sqrt(meanSquare.add(eps)))).mul(weight);
}

/** x·Wᵀ + s·(x·Aᵀ)·Bᵀ; keeps nothing of x. */
function linear(frozen: Frozen, lora: Factors, module: string, scale: number, x: np.Array): np.Array {
  const base = np.matmul(x.ref, take(frozen, `${module}.weight`).transpose());
  const xa = np.matmul(x, take(lora, `${module}.A`).transpose());
  return base.add(np.matmul(xa, take(lora, `${module}.B`).transpose()).mul(scale));
}

/** Rotates [B, T, H, headSize] by halves; cos and sin are [T, 1, headSize/2]. */
function rotate(x: np.Array, cos: np.Array, sin: np.Array, half: number): np.Array {
  const a = x.ref.slice([], [], [], [0, half]);
  const b = x.slice([], [], [], [half, 2 * half]);
  const low = a.ref.mul(cos.ref).sub(b.ref.mul(sin.ref));
  const high = b.mul(cos).add(a.mul(sin));
  return np.concatenate([low, high], -1);
}

interface Sizes {
  readonly config: ModelConfig;
  readonly batch: number;
  readonly sequence: number;
  readonly scale: number;
}

/** Mean loss of the batch, nats per token. */
function lossOf({ config, batch, sequence, scale }: Sizes, lora: Factors, frozen: Frozen): np.Array {
  const { hiddenSize, heads, kvHeads, headSize, layers, normEpsilon, vocabSize } = config;
  const norm = (x: np.Array, name: string) => rmsNorm(x, take(frozen, `${name}.weight`), normEpsilon);
  const project = (module: string, x: np.Array) => linear(frozen, lora, module, scale, x);
  const [cos, sin] = [take(frozen, 'cos'), take(frozen, 'sin')];
  let x = np.take(take(frozen, 'model.embed_tokens.weight'), take(frozen, 'ids'), 0);
  for (let layer = 0; layer < layers; layer += 1) {
    const block = `model.layers.${layer}`;
    const attention = `${block}.self_attn`;
    const normed = norm(x.ref, `${block}.input_layernorm`);
    const split = (name: string, count: number) =>
      project(`${attention}.${name}_proj`, normed.ref).reshape([batch, sequence, count, headSize]);
    const q = rotate(split('q', heads), cos.ref, sin.ref, headSize / 2);
    const k = rotate(split('k', kvHeads), cos.ref, sin.ref, headSize / 2);
    const v = split('v', kvHeads);
    normed.dispose();
    const attended = nn.dotProductAttention(q, k, v, { isCausal: true });
    x = x.add(project(`${attention}.o_proj`, attended.reshape([batch * sequence, heads * headSize])));
    const normed2 = norm(x.ref, `${block}.post_attention_layernorm`);
    const gate = project(`${block}.mlp.gate_proj`, normed2.ref);
    const up = project(`${block}.mlp.up_proj`, normed2);
    x = x.add(project(`${block}.mlp.down_proj`, nn.silu(gate).mul(up)));
  }
  cos.dispose();
  sin.dispose();
  const hidden = norm(x, 'model.norm').reshape([batch * sequence, hiddenSize]);
  const logits = np.matmul(hidden, take(frozen, 'model.embed_tokens.weight').transpose());
  // Not nn.oneHot, which takes rows of an identity matrix [V, V]: of 32,000 tokens that is 4 GB.
  const wanted = take(frozen, 'targets')
    .reshape([batch * sequence, 1])
    .equal(np.arange(vocabSize, undefined, undefined, { dtype: np.int32 }));
  const right = np.where(wanted, logits.ref, 0).sum(-1);
  return nn.logsumexp(logits, -1).sub(right).mean();
}

const HYPER = hyperAt(1);

/** The first thing its device refused; null while all is well. */
let refused: string | null = null;

/** Throws what the device has refused since the last call. */
function throwIfRefused(): void {
  const message = refused;
  refused = null;
  if (message !== null) throw new Error(`jax-js: ${message}`);
}

/** Opens the webgpu device. Throws where jax-js finds none. */
export async function openJax(version: string): Promise<Library> {
  const found = await init('webgpu');
  if (!found.includes('webgpu')) throw new Error('jax-js found no WebGPU adapter.');
  defaultDevice('webgpu');
  // It prints what its device refuses and goes on with numbers that mean nothing.
  getWebGPUDevice().addEventListener('uncapturederror', ({ error }) => {
    refused ??= error.message;
  });
  return { name: `@jax-js/jax ${version}`, matmul, step, close: () => Promise.resolve() };
}

/** Whatever the kind, b is laid out as [N, K] beforehand, and the product is x·bᵀ: on most adapters its faster one. */
async function matmul(shape: MatmulShape, a: Float32Array, b: Float32Array) {
  const { kind, rows, columns, inner } = shape;
  const x = arrayOf(a, [rows, inner]);
  const w = arrayOf(kind === 'NT' ? b : transposed(b, inner, columns), [columns, inner]);
  const product = jit((left: np.Array, right: np.Array) => np.matmul(left, right.transpose()));
  await blockUntilReady([x, w]);
  const once = () => product(x.ref, w.ref);
  return {
    async run(times: number) {
      // All are kept until they are done: what is disposed of before is never computed.
      const results = Array.from({ length: times }, once);
      await blockUntilReady(results);
      tree.dispose(results);
      throwIfRefused();
    },
    async read() {
      return (await once().data()) as Float32Array;
    },
    destroy() {
      x.dispose();
      w.dispose();
      product.dispose();
    },
  };
}

async function step(data: StepData) {
  const { workload, weights, adapter, ids, targets, cos, sin } = data;
  const { config, batch, sequence } = workload;
  const scale = [...adapter.matrices.values()][0]?.scale ?? 1;
  const half = config.headSize / 2;
  const frozen: Frozen = {
    ids: arrayOf(Int32Array.from(ids), [batch * sequence]),
    targets: arrayOf(targets, [batch * sequence]),
    cos: arrayOf(cos, [sequence, 1, half]),
    sin: arrayOf(sin, [sequence, 1, half]),
  };
  for (const [name, { values, shape }] of weights) frozen[name] = arrayOf(values, shape);
  let params: Factors = {};
  for (const { module, a, b, rank, in: columns, out } of adapter.matrices.values()) {
    params[`${module}.A`] = arrayOf(a, [rank, columns]);
    params[`${module}.B`] = arrayOf(b, [out, rank]);
  }
  const zeros = (): Factors =>
    Object.fromEntries(Object.entries(params).map(([name, value]) => [name, np.zeros(value.shape)]));
  let [m, v] = [zeros(), zeros()];

  const { learningRate, beta1, beta2, eps, weightDecay } = HYPER;
  const loss = (lora: Factors, fixed: Frozen) => {
    const value = lossOf({ config, batch, sequence, scale }, lora, fixed);
    tree.dispose(lora);
    tree.dispose(fixed);
    return value;
  };
  /** `corrections` is 1 / (1 − β₁ᵗ) and 1 / (1 − β₂ᵗ). */
  const update = jit((lora: Factors, first: Factors, second: Factors, fixed: Frozen, corrections: np.Array) => {
    const [value, grads] = valueAndGrad(loss)(tree.ref(lora), fixed) as [np.Array, Factors];
    const next: { params: Factors; m: Factors; v: Factors } = { params: {}, m: {}, v: {} };
    for (const name of Object.keys(lora)) {
      const grad = take(grads, name);
      const mNext = take(first, name)
        .mul(beta1)
        .add(grad.ref.mul(1 - beta1));
      const vNext = take(second, name)
        .mul(beta2)
        .add(np.square(grad).mul(1 - beta2));
      const change = mNext.ref
        .mul(corrections.ref.slice(0))
        .div(np.sqrt(vNext.ref.mul(corrections.ref.slice(1))).add(eps));
      next.params[name] = take(lora, name)
        .mul(1 - learningRate * weightDecay)
        .sub(change.mul(learningRate));
      next.m[name] = mNext;
      next.v[name] = vNext;
    }
    for (const each of [lora, first, second, grads]) tree.dispose(each);
    corrections.dispose();
    return { value, next };
  });
  await blockUntilReady(frozen);
  let count = 0;
  return {
    async step() {
      count += 1;
      const corrections = np.array([1 / (1 - beta1 ** count), 1 / (1 - beta2 ** count)]);
      const { value, next } = update(params, m, v, tree.ref(frozen), corrections);
      ({ params, m, v } = next);
      const read = await value.data();
      await blockUntilReady(params);
      throwIfRefused();
      return Number(read[0]);
    },
    destroy() {
      for (const each of [params, m, v, frozen]) tree.dispose(each);
      update.dispose();
    },
  };
}
