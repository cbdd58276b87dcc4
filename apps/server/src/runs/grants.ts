// What a client is granted: a rank and a scale for every adapted matrix.
import { createHash } from 'node:crypto';
import { alphaOf, rankOf, type SparseSpec } from '@weft/formats';
import { canonicalJson, type Grant, type RunSettings } from '@weft/protocol';

/** A matrix that carries an adapter. W is `[out, in]`. */
export interface Matrix {
  /** Name as in the checkpoint, such as `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly out: number;
  readonly in: number;
}

/** A grant of `rank`; matrices smaller than that get what they can hold, at the same scale. */
export function makeGrant(
  settings: Pick<RunSettings, 'alphaPerRank' | 'targets'>,
  matrices: readonly Matrix[],
  rank: number,
): Grant {
  const small = matrices.filter((matrix) => Math.min(matrix.out, matrix.in) < rank);
  const pattern = (perRank: number) =>
    Object.fromEntries(small.map((matrix) => [matrix.module, perRank * Math.min(matrix.out, matrix.in)]));
  return {
    rank,
    alpha: settings.alphaPerRank * rank,
    rankPattern: pattern(1),
    alphaPattern: pattern(settings.alphaPerRank),
    targets: [...settings.targets],
  };
}

/** The state is kept at this many times the largest rank a client may have. */
const STATE_RANK_FACTOR = 4;

/** Rank that the state of every matrix is kept at, where the matrix has it. */
export const stateRankOf = ({ ranks }: Pick<RunSettings, 'ranks'>): number => STATE_RANK_FACTOR * Math.max(...ranks);

/** s = α/r of one matrix. */
export const scaleOf = (grant: Grant, module: string): number => alphaOf(grant, module) / rankOf(grant, module);

/** What a round that starts from `version` trains where its updates are sparse; null where it trains factors. */
export const sparseStage = (
  { sparseRounds, sparseDensity, seed }: Pick<RunSettings, 'sparseRounds' | 'sparseDensity' | 'seed'>,
  version: number,
): SparseSpec | null => (version < sparseRounds ? { density: sparseDensity, seed } : null);

/** Start weights of a version are kept under this: one for each grant, or one for all where updates are sparse. */
export const startKey = (sparse: SparseSpec | null, grant: Grant): string => (sparse ? 'sparse' : grantKey(grant));

const keys = new WeakMap<Grant, string>();

/** Equal for equal grants; safe as a file's name. */
export function grantKey(grant: Grant): string {
  const known = keys.get(grant);
  if (known !== undefined) return known;
  const key = createHash('sha256').update(canonicalJson(grant)).digest('hex').slice(0, 32);
  keys.set(grant, key);
  return key;
}

/** Bytes of the float32 factors of a grant, without the file's header. */
export function factorBytes(grant: Grant, matrices: readonly Matrix[]): number {
  return matrices.reduce((sum, matrix) => sum + 4 * rankOf(grant, matrix.module) * (matrix.out + matrix.in), 0);
}
