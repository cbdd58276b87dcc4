// The adapter in training: which matrices it adapts at which rank, and its first values.
import {
  alphaOf,
  type LoraAdapter,
  type LoraFactors,
  loraTargets,
  type ModelConfig,
  PROJECTIONS,
  type Projection,
  parsePeftTensorName,
  type RankSpec,
  rankOf,
  readFactors,
  readSafetensors,
  type SparseSpec,
  scaleOf,
} from '@weft/formats';
import { TrainerError } from '../errors.ts';
import { seededRandom } from '../random.ts';

/** What adapts a model: ranks and alphas (PEFT's patterns), and the projections they apply to. */
export interface AdapterSpec extends RankSpec {
  readonly targets: readonly Projection[];
  /** Scales are α/√r instead of α/r (Kalajdzievski 2023). */
  readonly rslora?: boolean;
}

/** One adapted matrix before it has values. */
export interface AdaptedMatrix {
  readonly module: string;
  readonly in: number;
  readonly out: number;
  readonly rank: number;
  readonly alpha: number;
  readonly scale: number;
  /** Not factored: `rank` trained elements a row at these places, in the place of B (sparse.ts). */
  readonly sparse?: SparseSpec;
}

/** A plain spec: one rank, α = alphaPerRank · rank, on these projections. */
export function plainSpec(
  rank: number,
  alpha: number = 2 * rank,
  targets: readonly Projection[] = PROJECTIONS,
): AdapterSpec {
  return { rank, alpha, rankPattern: {}, alphaPattern: {}, targets };
}

/** The matrices a spec adapts. A rank is cut to the smaller side of its matrix, keeping the scale. */
export function adaptedMatrices(config: ModelConfig, spec: AdapterSpec): AdaptedMatrix[] {
  return loraTargets(config, spec.targets).map(({ module, in: columns, out }) => {
    const asked = rankOf(spec, module);
    const scale = scaleOf(alphaOf(spec, module), asked, spec.rslora);
    const rank = Math.min(asked, columns, out);
    return { module, in: columns, out, rank, alpha: scale * (spec.rslora ? Math.sqrt(rank) : rank), scale };
  });
}

/** Bytes of the adapter's factors in float32: what an upload weighs, without its header. */
export const factorBytes = (matrices: readonly AdaptedMatrix[]): number =>
  matrices.reduce((sum, { in: columns, out, rank }) => sum + 4 * rank * (columns + out), 0);

/**
 * First values: B = 0, A uniform in ±1/√in (Kaiming with a = √5, as PEFT), seeded by (seed, tensor name). ΔW starts at 0.
 */
export function initialAdapter(config: ModelConfig, spec: AdapterSpec, seed: string): LoraAdapter {
  const matrices = adaptedMatrices(config, spec).map((matrix): LoraFactors => {
    const random = seededRandom(seed, matrix.module);
    const bound = 1 / Math.sqrt(matrix.in);
    const a = Float32Array.from({ length: matrix.rank * matrix.in }, () => (2 * random.uniform() - 1) * bound);
    return { ...matrix, a, b: new Float32Array(matrix.out * matrix.rank) };
  });
  const rslora = spec.rslora ?? false;
  return { baseModel: '', rslora, matrices: new Map(matrices.map((factors) => [factors.module, factors])) };
}

/** Reads a start blob (PEFT names) and proves that it has the granted ranks. Throws TrainerError 'rank-mismatch' or FormatError. */
export function adapterFromBlob(config: ModelConfig, spec: AdapterSpec, blob: Uint8Array): LoraAdapter {
  const wanted = adaptedMatrices(config, spec);
  const exact = {
    rank: spec.rank,
    alpha: spec.alpha,
    rankPattern: Object.fromEntries(wanted.map(({ module, rank }) => [module.replaceAll('.', '\\.'), rank])),
    alphaPattern: Object.fromEntries(wanted.map(({ module, alpha }) => [module.replaceAll('.', '\\.'), alpha])),
    rslora: spec.rslora ?? false,
  };
  const matrices = readFactors(blob, exact, 'the start weights');
  const adapter = { baseModel: '', rslora: exact.rslora, matrices };
  checkAdapter(config, adapter);
  for (const { module, rank } of wanted) {
    const actual = matrices.get(module)?.rank;
    if (actual !== rank)
      throw new TrainerError(
        'rank-mismatch',
        `The start weights have rank ${actual ?? 'none'} for ${module} where rank ${rank} is granted.`,
      );
  }
  return adapter;
}

/**
 * Reads a frozen side adapter (PEFT names, any rank by matrix): its products are added at scale 1. Empty where the blob holds
 * no factor. Throws TrainerError 'adapter-model' or FormatError.
 */
export function sideFromBlob(config: ModelConfig, blob: Uint8Array): LoraFactors[] {
  const file = 'the side adapter';
  const ranks = new Map<string, number>();
  for (const [name, { shape }] of readSafetensors(blob, file).tensors) {
    const parsed = parsePeftTensorName(name);
    if (parsed?.factor === 'A') ranks.set(parsed.module.replaceAll('.', '\\.'), shape[0] ?? 0);
  }
  if (ranks.size === 0) return [];
  const pattern = Object.fromEntries(ranks);
  const matrices = readFactors(
    blob,
    { rank: 1, alpha: 1, rankPattern: pattern, alphaPattern: pattern, rslora: false },
    file,
  );
  checkAdapter(config, { baseModel: '', rslora: false, matrices });
  return [...matrices.values()];
}

/** Throws TrainerError 'adapter-model' naming the first matrix that the model does not have in this shape. */
export function checkAdapter(config: ModelConfig, adapter: LoraAdapter): void {
  const known = new Map(loraTargets(config).map((target) => [target.module, target]));
  for (const { module, in: columns, out } of adapter.matrices.values()) {
    const target = known.get(module);
    if (!target)
      throw new TrainerError('adapter-model', `The adapter belongs to another model: this one has no ${module}.`);
    if (target.in !== columns || target.out !== out) {
      throw new TrainerError(
        'adapter-model',
        `The adapter belongs to another model: it adapts ${module} as [${out}, ${columns}], here it is [${target.out}, ${target.in}].`,
      );
    }
  }
}
