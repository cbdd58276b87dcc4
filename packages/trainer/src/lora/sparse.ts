// Sparse updates as the trainer sees them: ΔW with trained elements at fixed places instead of factors, the first stage of
// SLoRA (Babakniya et al., 2023, arXiv 2308.06522). The elements [out, perRow] lie in the place of B, perRow being the
// rank, and A is empty, so that plans, optimisers and snapshots serve both.
import {
  elementsPerRow,
  type LoraAdapter,
  type LoraFactors,
  loraTargets,
  type ModelConfig,
  type Projection,
  readSparse,
  type SparseSpec,
  writeSparse,
} from '@weft/formats';
import type { AdaptedMatrix } from './adapter.ts';

/** Where a sparse update may differ from 0, and in which projections. */
export interface SparseAdapterSpec extends SparseSpec {
  readonly targets: readonly Projection[];
}

/** The matrices that carry a sparse update. */
export const sparseMatrices = (config: ModelConfig, { targets, density, seed }: SparseAdapterSpec): AdaptedMatrix[] =>
  loraTargets(config, targets).map(({ module, in: columns, out }) => {
    const perRow = elementsPerRow({ density }, columns);
    return { module, in: columns, out, rank: perRow, alpha: perRow, scale: 1, sparse: { density, seed } };
  });

/** Elements in the place of factors. Throws FormatError 'adapter-tensor' where the blob holds others than the spec says. */
export function sparseFromBlob(config: ModelConfig, spec: SparseAdapterSpec, blob: Uint8Array): LoraAdapter {
  const matrices = sparseMatrices(config, spec);
  const updates = readSparse(blob, spec, matrices, 'the start weights');
  const factors = matrices.map((matrix): [string, LoraFactors] => {
    const b = updates.get(matrix.module)?.values ?? new Float32Array(matrix.out * matrix.rank);
    return [matrix.module, { ...matrix, a: new Float32Array(0), b }];
  });
  return { baseModel: '', rslora: false, matrices: new Map(factors) };
}

/** The elements as a file. */
export const writeSparseFactors = (factors: Iterable<LoraFactors>): Uint8Array =>
  writeSparse(
    Array.from(factors, ({ module, out, in: columns, rank, b }) => ({
      module,
      out,
      in: columns,
      perRow: rank,
      values: b,
    })),
  );
