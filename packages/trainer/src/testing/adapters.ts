// Adapters and rows for the families: every way ranks, scales and targets may differ, and rows whose lengths and masks do.
import {
  alphaOf,
  type LoraAdapter,
  type LoraFactors,
  loraTargets,
  type ModelConfig,
  PROJECTIONS,
  type Projection,
  type RankSpec,
  rankOf,
  scaleOf,
} from '@weft/formats';
import type { Example } from '../data/examples.ts';
import { seededRandom } from '../random.ts';

export interface TestAdapter extends RankSpec {
  readonly targets: readonly Projection[];
  readonly rslora: boolean;
  /** Adapt only layers from this one on. */
  readonly firstLayer?: number;
}

const plain = { rankPattern: {}, alphaPattern: {}, targets: PROJECTIONS, rslora: false };

/** By family: one adapter on all seven projections first, then others. */
export const ADAPTERS: Readonly<Record<string, Readonly<Record<string, TestAdapter>>>> = {
  'llama-2': {
    'ranks by matrix': { ...plain, rank: 3, alpha: 5, rankPattern: { up_proj: 5, 'layers.1.self_attn.q_proj': 1 } },
    'attention only': { ...plain, rank: 2, alpha: 4, targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj'] },
  },
  'llama-3': {
    rslora: { ...plain, rank: 4, alpha: 3, rslora: true },
    'the second layer only': { ...plain, rank: 2, alpha: 3, firstLayer: 1 },
  },
  'llama-linear': { 'rank 1': { ...plain, rank: 1, alpha: 2 } },
  smollm2: {
    'alphas by matrix': { ...plain, rank: 2, alpha: 4, alphaPattern: { down_proj: 1, 'self_attn\\..*': 3 } },
    'one projection': { ...plain, rank: 3, alpha: 6, targets: ['k_proj'] },
  },
  tinyllama: {
    'rslora with patterns': {
      ...plain,
      rank: 5,
      alpha: 4,
      rankPattern: { o_proj: 2, 'mlp.gate_proj': 7 },
      alphaPattern: { k_proj: 9 },
      rslora: true,
    },
  },
  mistral: {
    'rank 3': { ...plain, rank: 3, alpha: 6 },
    'two projections': { ...plain, rank: 4, alpha: 2, targets: ['v_proj', 'down_proj'] },
  },
  qwen2: {
    'rank 2': { ...plain, rank: 2, alpha: 4 },
    'feed-forward only': { ...plain, rank: 3, alpha: 3, targets: ['gate_proj', 'up_proj', 'down_proj'] },
  },
  'qwen2-window': { 'ranks by layer': { ...plain, rank: 2, alpha: 3, rankPattern: { 'layers.2.*': 4 } } },
  qwen3: {
    'rslora with patterns': { ...plain, rank: 3, alpha: 4, rankPattern: { q_proj: 6, k_proj: 1 }, rslora: true },
    'queries and keys': { ...plain, rank: 2, alpha: 4, targets: ['q_proj', 'k_proj'] },
  },
  'llama-biases': { 'rank 4': { ...plain, rank: 4, alpha: 8 } },
};

/** Seeded factors. B is not zero, so that A has a gradient too. */
export function testAdapter(config: ModelConfig, spec: TestAdapter): LoraAdapter {
  const { rslora, targets, firstLayer = 0 } = spec;
  const adapted = loraTargets(config, targets).filter(({ layer }) => layer >= firstLayer);
  const matrices = adapted.map(({ module, in: columns, out }): LoraFactors => {
    const [rank, alpha] = [rankOf(spec, module), alphaOf(spec, module)];
    const random = seededRandom('test adapter', module);
    const uniform = (length: number, bound: number) =>
      Float32Array.from({ length }, () => bound * (2 * random.uniform() - 1));
    const a = uniform(rank * columns, 1 / Math.sqrt(columns));
    const b = uniform(out * rank, 0.3);
    return { module, in: columns, out, rank, alpha, scale: scaleOf(alpha, rank, rslora), a, b };
  });
  return { baseModel: '', rslora, matrices: new Map(matrices.map((own) => [own.module, own])) };
}

/** An example with its targets counted. */
export const exampleOf = (inputIds: readonly number[], labels: readonly number[]): Example => ({
  inputIds,
  labels,
  targets: labels.slice(1).filter((label) => label >= 0).length,
});

/**
 * Six rows of unequal length for a vocabulary: a prompt masked, nothing masked, a hole between labels, one label at the end,
 * and labels that are not the tokens themselves.
 */
export function testExamples(vocabSize: number): Example[] {
  const random = seededRandom('test rows');
  const row = (length: number, label: (id: number, t: number) => number) => {
    const inputIds = Array.from({ length }, () => random.below(vocabSize));
    return exampleOf(inputIds, inputIds.map(label));
  };
  return [
    row(19, (id, t) => (t < 6 ? -100 : id)),
    row(7, (id) => id),
    row(12, (id, t) => (t === 4 || t === 5 ? -100 : id)),
    row(9, (id, t) => (t < 8 ? -100 : id)),
    row(2, (id) => (id + 1) % vocabSize),
    row(5, (id, t) => (t < 2 ? -100 : id)),
  ];
}
