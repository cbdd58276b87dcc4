import { parseModelConfig } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { adaptedMatrices, plainSpec } from '../lora/adapter.ts';
import { sparseMatrices } from '../lora/sparse.ts';
import { modelFlops } from './flops.ts';

/** Sizes of a 15 M Llama with as many key heads as query heads unless told otherwise. */
const config = (more: Record<string, unknown> = {}) =>
  parseModelConfig(
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      hidden_size: 288,
      intermediate_size: 768,
      num_hidden_layers: 6,
      num_attention_heads: 6,
      num_key_value_heads: 6,
      vocab_size: 32_000,
      max_position_embeddings: 256,
      rms_norm_eps: 1e-5,
      ...more,
    }),
  );
const shape = { batch: 1, sequence: 256 };
const block = 4 * 288 * 288 + 3 * 288 * 768;
const head = 32_000 * 288;

describe('operations of a step', () => {
  it('are those of the formula for all seven projections', () => {
    const llama = config();
    const flops = modelFlops(llama, adaptedMatrices(llama, plainSpec(8)), shape);
    expect(flops.forward).toBe(2 * 256 * (6 * block + head));
    // Nothing wants the gradient of what goes into the first q, k and v.
    expect(flops.backward).toBe(flops.forward - 2 * 256 * 3 * 288 * 288);
    expect(flops.lora).toBe(6 * 256 * 8 * 6 * (4 * (288 + 288) + 3 * (288 + 768)));
    expect(flops.attention).toBe(6 * 6 * 2 * ((256 * 257) / 2) * 288);
    expect(flops.total).toBe(flops.forward + flops.backward + flops.lora + flops.attention);
  });

  it('count only the elements of sparse matrices', () => {
    const llama = config();
    const spec = { density: 0.01, seed: 's', targets: ['q_proj', 'down_proj'] as const };
    const flops = modelFlops(llama, sparseMatrices(llama, spec), shape);
    // Three elements of 288 in a row, eight of 768.
    expect(flops.lora).toBe(6 * 256 * 6 * (288 * 3 + 288 * 8));
  });

  it('stop below the lowest trained block, and at the loss where nothing is trained', () => {
    const llama = config();
    const high = adaptedMatrices(llama, plainSpec(8)).filter(({ module }) => /layers\.[45]\./.test(module));
    const flops = modelFlops(llama, high, shape);
    const all = modelFlops(llama, adaptedMatrices(llama, plainSpec(8)), shape);
    expect(flops.forward).toBe(all.forward);
    expect(flops.backward).toBe(2 * 256 * (2 * block + head - 3 * 288 * 288));
    expect(3 * flops.lora).toBe(all.lora);
    expect(flops.attention).toBe((all.attention * (4 * 2 + 2 * 6)) / 36);
    const none = modelFlops(llama, [], shape);
    expect([none.backward, none.lora]).toEqual([0, 0]);
    expect(3 * none.attention).toBe(all.attention);
  });

  it('count fewer key heads, and only what a window shows', () => {
    const grouped = config({ num_key_value_heads: 2 });
    const less = 2 * 256 * 6 * 2 * 288 * (4 * 48);
    expect(modelFlops(grouped, [], shape).forward).toBe(modelFlops(config(), [], shape).forward - less);
    const windowed = { ...config(), windows: [null, null, null, null, null, 4] };
    // Of T rows, the first three see one to three keys, and the others four.
    const pairs = 5 * ((256 * 257) / 2) + 1 + 2 + 3 + 4 * 253;
    expect(modelFlops(windowed, [], shape).attention).toBe(2 * 2 * pairs * 288);
  });

  it('grow with the rows, and are linear in them', () => {
    const llama = config();
    const matrices = adaptedMatrices(llama, plainSpec(8));
    const { total } = modelFlops(llama, matrices, shape);
    expect(modelFlops(llama, matrices, { batch: 3, sequence: 256 }).total).toBe(3 * total);
  });
});
