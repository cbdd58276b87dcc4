// Plans without a GPU: what is computed is what a device would be asked for, so large models can be planned anywhere.
import { parseModelConfig } from '@weft/formats';
import { describe, expect, it } from 'vitest';
import { adaptedMatrices, plainSpec } from '../lora/adapter.ts';
import { ADAMW, type Optimiser, optimiserOf } from '../optim/optimiser.ts';
import { fitMemory, planMemory, stepVariants } from './memory.ts';

/** Sizes of Llama 3.2 1B, from its public configuration. */
const llama1b = parseModelConfig(
  JSON.stringify({
    architectures: ['LlamaForCausalLM'],
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    vocab_size: 128_256,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    rope_theta: 500_000,
    rope_scaling: {
      rope_type: 'llama3',
      factor: 32,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
    tie_word_embeddings: true,
  }),
);
const matrices = adaptedMatrices(llama1b, plainSpec(16));
const shape = { batch: 1, sequence: 512 };

describe('memory of Llama 3.2 1B, rank 16, T 512', () => {
  it('is under 1.3 GB in q4 with recomputed activations', () => {
    const plan = planMemory(llama1b, matrices, shape, { weights: 'q4', checkpoint: true });
    expect(plan.total).toBeLessThan(1.3e9);
    const { microBatch, checkpoint, total, flops, dispatches, ...parts } = plan;
    expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(total);
    expect([microBatch, checkpoint]).toEqual([1, true]);
    // Forward, recomputed, and back through the frozen weights: 2 · 512 · parameters each, less the product that is not needed
    // again, plus the head.
    expect(flops).toBeGreaterThan(3 * 512 * 2 * 0.97e9);
    expect(flops).toBeLessThan(4 * 512 * 2 * 0.97e9);
    expect(dispatches).toBeGreaterThan(16 * 40);
  });

  it('falls with fewer bits, and with recomputing', () => {
    const totals = (['f32', 'f16', 'q8', 'q4'] as const).map(
      (weights) => planMemory(llama1b, matrices, shape, { weights }).weights,
    );
    const parameters = 1_235_814_400;
    expect(totals[0]).toBeGreaterThanOrEqual(4 * parameters);
    expect(totals[0]).toBeLessThan(4.001 * parameters);
    expect(totals[1]).toBeLessThan(2.001 * parameters);
    expect(totals[2]).toBeLessThan(1.0635 * parameters);
    expect(totals[3]).toBeLessThan(0.68 * parameters);
    const kept = planMemory(llama1b, matrices, shape).activations;
    expect(planMemory(llama1b, matrices, shape, { checkpoint: true }).activations).toBeLessThan(kept / 4);
  });
});

describe('what an optimiser keeps', () => {
  const planOf = (optimiser: Optimiser) => planMemory(llama1b, matrices, shape, { optimiser });
  const adamw = planOf(ADAMW);

  it('is two numbers a factor for AdamW, one for SGD with momentum, none for SGD, and nothing else differs', () => {
    const [velocity, plain] = [planOf({ name: 'sgd', momentum: 0.9 }), planOf({ name: 'sgd', momentum: 0 })];
    expect([adamw, velocity, plain].map(({ optimiser }) => optimiser / adamw.gradients)).toEqual([2, 1, 0]);
    expect(adamw.total - velocity.total).toBe(adamw.gradients);
    expect(adamw.total - plain.total).toBe(2 * adamw.gradients);
    expect(plain.dispatches).toBe(adamw.dispatches);
  });

  it('is refused where it cannot be', () => {
    expect(optimiserOf({})).toBe(ADAMW);
    expect(optimiserOf({ optimiser: 'sgd', momentum: 0.5 })).toEqual({ name: 'sgd', momentum: 0.5 });
    expect(() => optimiserOf({ momentum: 0.9 })).toThrow(expect.objectContaining({ code: 'bad-settings' }));
    expect(() => optimiserOf({ optimiser: 'sgd', momentum: 1 })).toThrow(/never forgets/);
  });
});

describe('the choice of a way to run a step', () => {
  it('tries the fastest first', () => {
    const variants = stepVariants({ batch: 4, sequence: 128 });
    expect(variants.map(({ microBatch, checkpoint }) => `${microBatch}${checkpoint ? 'c' : ''}`)).toEqual([
      '4',
      '2',
      '4c',
      '2c',
      '1',
      '1c',
    ]);
    expect(stepVariants({ batch: 4, sequence: 128 }, { checkpoint: true, microBatch: 2 })).toEqual([
      { microBatch: 2, checkpoint: true },
    ]);
  });

  it('takes the first that fits the budget, or tells the least that none of them exceeds', () => {
    const batch = { batch: 8, sequence: 256 };
    const ways = stepVariants(batch).map(
      (way) => planMemory(llama1b, matrices, batch, { weights: 'q4', ...way }).total,
    );
    const least = Math.min(...ways);
    for (const budget of [...ways, Number.POSITIVE_INFINITY]) {
      const { plan, fits } = fitMemory(llama1b, matrices, batch, { weights: 'q4', budget });
      expect(fits).toBe(true);
      expect(plan.total).toBe(ways.find((total) => total <= budget));
    }
    // A binding too small for the queries of all rows leaves the smaller micro-batches.
    const slabLimit = 4 * 4096 * 2048;
    const many = { batch: 32, sequence: 256 };
    const small = fitMemory(llama1b, matrices, many, { weights: 'q4', slabLimit, budget: Number.POSITIVE_INFINITY });
    expect(small.plan.microBatch).toBe(16);
    expect(() => fitMemory(llama1b, matrices, batch, { slabLimit: 1024, budget: 1 })).toThrow(
      /at most 1024|do not fit/,
    );
    const none = fitMemory(llama1b, matrices, batch, { weights: 'q4', budget: least - 1 });
    expect([none.fits, none.plan.total]).toEqual([false, least]);
  });
});
