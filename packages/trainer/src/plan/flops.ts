// The operations a training step's mathematics needs, however it is computed: the numerator of its utilisation. Pure numbers.
import type { ModelConfig } from '@weft/formats';
import type { AdaptedMatrix } from '../lora/adapter.ts';
import type { StepShape } from './layout.ts';

/** Floating-point operations of one step by what they are for; a multiply-add is two. */
export interface ModelFlops {
  /** Products with frozen matrices and the head: 2 · N · P. */
  readonly forward: number;
  /** The same with their transposes, which carry the gradient down: 2 · N · P, as far down as anything is trained. */
  readonly backward: number;
  /** Products with factors: 6 · N · r · (in + out), or with sparse matrices: 6 · N · elements. A third of it forward. */
  readonly lora: number;
  /** Q·Kᵀ and P·V, and four such products backward, of the keys each query sees. */
  readonly attention: number;
  readonly total: number;
}

/** Pairs of a query and a key it sees in a row: itself and those before it, within the window. */
function visiblePairs(sequence: number, window: number | null): number {
  const most = Math.min(window ?? sequence, sequence);
  return (most * (most + 1)) / 2 + (sequence - most) * most;
}

/**
 * Operations of a LoRA step on N = batch · sequence tokens, every row one example without padding. P counts the elements
 * of the blocks' matrices and of the head: 2 · N · P forward and 2 · N · P for gradients of inputs; frozen matrices have no
 * gradient of their own. Blocks below the lowest trained one carry no gradient, and the inputs of its q, k and v want none.
 * Nothing is counted twice for being recomputed, and what is no matrix product is not counted, nor is the embedding's look-up
 * (after Kaplan et al. 2020, table 1, and Chowdhery et al. 2022, appendix B).
 */
export function modelFlops(
  config: ModelConfig,
  matrices: readonly AdaptedMatrix[],
  { batch, sequence }: StepShape,
): ModelFlops {
  const { hiddenSize, intermediateSize, heads, kvHeads, headSize, layers, vocabSize } = config;
  const tokens = batch * sequence;
  const qkv = hiddenSize * headSize * (heads + 2 * kvHeads);
  const block = qkv + hiddenSize * headSize * heads + 3 * hiddenSize * intermediateSize;
  const head = vocabSize * hiddenSize;
  const trainedLayers = matrices.map(({ module }) => Number(/^model\.layers\.(\d+)\./.exec(module)?.[1] ?? 0));
  const lowest = Math.min(layers, ...trainedLayers);
  const carrying = matrices.length === 0 ? 0 : head + (layers - lowest) * block - qkv;
  let attention = 0;
  for (const [layer, window] of config.windows.entries()) {
    const product = 2 * batch * visiblePairs(sequence, window) * heads * headSize;
    attention += (layer >= lowest ? 6 : 2) * product;
  }
  const forward = 2 * tokens * (layers * block + head);
  const backward = 2 * tokens * carrying;
  const lora = matrices.reduce(
    (sum, { rank, in: columns, out, sparse }) => sum + 6 * tokens * rank * (sparse ? out : columns + out),
    0,
  );
  return { forward, backward, lora, attention, total: forward + backward + lora + attention };
}
