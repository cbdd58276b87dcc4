// @tensorflow/tfjs on its webgpu backend doing what we do: eager operations inside tf.tidy, gradients by tf.variableGrads,
// tf.train.adam with decoupled weight decay before it.

import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '@tensorflow/tfjs-core';
import { hyperAt, type StepData } from '../workload.ts';
import { type Library, type MatmulShape, transposed } from './peer.ts';

/** The first thing its device refused; null while all is well. */
let refused: string | null = null;

/**
 * Waits for the GPU by reading one number that depends on `x`: what tf.js documents, and cheaper than reading all. Throws what
 * the device has refused since the last call.
 */
async function finished(x: tf.Tensor): Promise<void> {
  const one = tf.tidy(() => tf.slice(tf.reshape(x, [-1]), [0], [1]));
  await one.data();
  one.dispose();
  const message = refused;
  refused = null;
  if (message !== null) throw new Error(`tf.js: ${message}`);
}

/** Registers and opens the webgpu backend. Throws where it finds no adapter. */
export async function openTfjs(): Promise<Library> {
  // Imported late: on import it looks for navigator.gpu once.
  await import('@tensorflow/tfjs-core/dist/register_all_gradients');
  await import('@tensorflow/tfjs-backend-webgpu');
  if (!(await tf.setBackend('webgpu'))) throw new Error('tf.js could not open its webgpu backend.');
  await tf.ready();
  const { device } = tf.backend() as WebGPUBackend;
  device.addEventListener('uncapturederror', ({ error }) => {
    refused ??= error.message;
  });
  return { name: `@tensorflow/tfjs-backend-webgpu ${tf.version_core}`, matmul, step, close: () => Promise.resolve() };
}

/** Whatever the kind, b is laid out as [K, N] beforehand, and nothing is transposed: its faster product. */
async function matmul(shape: MatmulShape, a: Float32Array, b: Float32Array) {
  const { kind, rows, columns, inner } = shape;
  const x = tf.tensor2d(a, [rows, inner]);
  const w = tf.tensor2d(kind === 'NN' ? b : transposed(b, columns, inner), [inner, columns]);
  const once = () => tf.matMul(x, w);
  return {
    async run(times: number) {
      for (let i = 0; i < times; i += 1) {
        const y = once();
        if (i === times - 1) await finished(y);
        y.dispose();
      }
    },
    async read() {
      const y = once();
      const values = (await y.data()) as Float32Array;
      y.dispose();
      return values;
    },
    destroy() {
      x.dispose();
      w.dispose();
    },
  };
}

async function step(data: StepData) {
  const { workload, weights, adapter } = data;
  const { config, batch, sequence } = workload;
  const { hiddenSize, heads, kvHeads, headSize, layers, vocabSize, normEpsilon } = config;
  const rows = batch * sequence;
  const half = headSize / 2;
  const scale = [...adapter.matrices.values()][0]?.scale ?? 1;
  const frozen = new Map<string, tf.Tensor>();
  for (const [name, { values, shape }] of weights) frozen.set(name, tf.tensor(values, [...shape]));
  const ids = tf.tensor1d(Int32Array.from(data.ids), 'int32');
  const wanted = tf.tidy(() =>
    tf.cast(tf.oneHot(tf.tensor1d(data.targets, 'int32'), vocabSize), 'float32'),
  ) as tf.Tensor2D;
  const cos = tf.tensor(data.cos, [1, sequence, 1, half]);
  const sin = tf.tensor(data.sin, [1, sequence, 1, half]);
  // Added to scores: later tokens are not seen.
  const mask = tf.tidy(() =>
    tf.reshape(tf.mul(tf.sub(1, tf.linalg.bandPart(tf.ones([sequence, sequence]), -1, 0)), -1e9), [
      1,
      1,
      sequence,
      sequence,
    ]),
  );
  const factors = new Map<string, tf.Variable>();
  for (const { module, a, b, rank, in: columns, out } of adapter.matrices.values()) {
    factors.set(`${module}.A`, tf.variable(tf.tensor2d(a, [rank, columns])));
    factors.set(`${module}.B`, tf.variable(tf.tensor2d(b, [out, rank])));
  }
  const weight = (name: string) => found(frozen, `${name}.weight`);

  const norm = (x: tf.Tensor, name: string) =>
    tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), normEpsilon))), weight(name));
  const linear = (x: tf.Tensor, module: string) => {
    const xa = tf.matMul(x, found(factors, `${module}.A`), false, true);
    return tf.add(
      tf.matMul(x, weight(module), false, true),
      tf.mul(tf.matMul(xa, found(factors, `${module}.B`), false, true), scale),
    );
  };
  const rotate = (x: tf.Tensor, count: number) => {
    const [a, b] = tf.split(tf.reshape(x, [batch, sequence, count, headSize]), 2, -1) as [tf.Tensor, tf.Tensor];
    return tf.concat([tf.sub(tf.mul(a, cos), tf.mul(b, sin)), tf.add(tf.mul(b, cos), tf.mul(a, sin))], -1);
  };
  const group = heads / kvHeads;
  /** [B, T, kvHeads, headSize] to [B, heads, T, headSize]. */
  const shared = (x: tf.Tensor) => {
    const byHead = tf.transpose(x, [0, 2, 1, 3]);
    if (group === 1) return byHead;
    const once = tf.reshape(byHead, [batch, kvHeads, 1, sequence * headSize]);
    return tf.reshape(tf.tile(once, [1, 1, group, 1]), [batch, heads, sequence, headSize]);
  };
  const attend = (x: tf.Tensor, attention: string) => {
    const q = tf.transpose(rotate(linear(x, `${attention}.q_proj`), heads), [0, 2, 1, 3]);
    const k = shared(rotate(linear(x, `${attention}.k_proj`), kvHeads));
    const v = shared(tf.reshape(linear(x, `${attention}.v_proj`), [batch, sequence, kvHeads, headSize]));
    const scores = tf.add(tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(headSize)), mask);
    const out = tf.transpose(tf.matMul(tf.softmax(scores), v), [0, 2, 1, 3]);
    return linear(tf.reshape(out, [rows, heads * headSize]), `${attention}.o_proj`);
  };
  const lossOf = (): tf.Scalar => {
    let x: tf.Tensor = tf.gather(weight('model.embed_tokens'), ids);
    for (let layer = 0; layer < layers; layer += 1) {
      const block = `model.layers.${layer}`;
      x = tf.add(x, attend(norm(x, `${block}.input_layernorm`), `${block}.self_attn`));
      const normed = norm(x, `${block}.post_attention_layernorm`);
      const gate = linear(normed, `${block}.mlp.gate_proj`);
      const activated = tf.mul(tf.mul(gate, tf.sigmoid(gate)), linear(normed, `${block}.mlp.up_proj`));
      x = tf.add(x, linear(activated, `${block}.mlp.down_proj`));
    }
    const hidden = tf.reshape(norm(x, 'model.norm'), [rows, hiddenSize]);
    const logits = tf.matMul(hidden, weight('model.embed_tokens'), false, true);
    return tf.losses.softmaxCrossEntropy(wanted, logits as tf.Tensor2D) as tf.Scalar;
  };

  const { learningRate, beta1, beta2, eps, weightDecay } = hyperAt(1);
  const adam = tf.train.adam(learningRate, beta1, beta2, eps);
  const trained = [...factors.values()];
  return {
    async step() {
      const value = tf.tidy(() => {
        const { value: loss, grads } = tf.variableGrads(lossOf, trained);
        for (const variable of trained) variable.assign(tf.mul(variable, 1 - learningRate * weightDecay));
        adam.applyGradients(Object.entries(grads).map(([name, tensor]) => ({ name, tensor })));
        return loss;
      });
      const read = await value.data();
      value.dispose();
      const last = trained.at(-1);
      if (last) await finished(last);
      return Number(read[0]);
    },
    destroy() {
      adam.dispose();
      for (const tensor of [...frozen.values(), ...trained, ids, wanted, cos, sin, mask]) tensor.dispose();
    },
  };
}

function found<T>(of: ReadonlyMap<string, T>, name: string): T {
  const tensor = of.get(name);
  if (tensor === undefined) throw new RangeError(`The step has no ${name}.`);
  return tensor;
}
