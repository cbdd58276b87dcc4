// What a run asks of the merge workers. Files go by path: a worker reads the tensors it needs, and no factor ever lies in
// the server's own memory.
import type { Agreement } from '@weft/flexlora';
import type { SparseSpec } from '@weft/formats';
import type { Grant, MatrixSpectrum, StrategyName } from '@weft/protocol';
import type { Matrix } from '../runs/grants.ts';

/** One upload and what it was started from, as files with PEFT names at their ranks, which differ where a client pruned. */
export interface UploadFiles {
  readonly path: string;
  readonly startPath: string;
  readonly grant: Grant;
  readonly startGrant: Grant;
  /** Both hold elements at these places instead of factors; null for factors. */
  readonly sparse: SparseSpec | null;
}

export interface WeightedUpload extends UploadFiles {
  readonly weight: number;
}

/** What a client trains from; what it holds frozen beside that; or the state itself, for an export or an evaluation. */
export type ReadOutPart = 'start' | 'side' | 'state';

export interface ReadOutJob {
  readonly part: ReadOutPart;
  readonly strategy: StrategyName;
  /** Committed state to read out of; null for version 0. */
  readonly global: string | null;
  readonly matrices: readonly Matrix[];
  readonly grant: Grant;
  /** Read out the elements at these places instead of factors; null for factors. */
  readonly sparse: SparseSpec | null;
  /** Seeds the rows of A where there is nothing to read out. */
  readonly seed: string;
}

export interface MergeJob {
  readonly strategy: StrategyName;
  /** β of the server's momentum; 0 is none. */
  readonly momentum: number;
  readonly global: string | null;
  readonly matrices: readonly Matrix[];
  /** In the order in which they are summed: by hash. Weights add up to 1. */
  readonly uploads: readonly (WeightedUpload & {
    /** What its change is multiplied by; 1 where it is not clipped. */
    readonly clip: number;
  })[];
  /** Not merged, only compared with what is. */
  readonly watched: readonly UploadFiles[];
  /** The round's updates are sparse; null where they are factors. */
  readonly sparse: SparseSpec | null;
  /** Of a sparse round: whether the next one is sparse too, and starts from the elements. */
  readonly keepElements: boolean;
  /** Rank the state is kept at; a matrix keeps at most min(out, in). */
  readonly stateRank: number;
  /** Ranks to give truncation errors at. */
  readonly ranks: readonly number[];
}

export interface MergeResult {
  /** The next state: safetensors, float64. */
  readonly state: Uint8Array;
  readonly spectra: readonly MatrixSpectrum[];
  /** Of the uploads and then of the watched with the mean change that was merged. */
  readonly agreement: Agreement;
}

export interface Change {
  /** Frobenius norm of s·B·A − s·B₀·A₀ over all matrices. */
  readonly norm: number;
  /** Whether any A differs from what was served. */
  readonly ofA: boolean;
}

export interface Merger {
  /** Safetensors with PEFT names, float32; no tensors where a side adapter has no direction. */
  readOut(job: ReadOutJob): Promise<Uint8Array>;
  /** What each upload changed of its start. */
  changes(uploads: readonly UploadFiles[], matrices: readonly Matrix[]): Promise<Change[]>;
  /** How the changes stand to the sum of all, weighted as given. */
  agreement(uploads: readonly WeightedUpload[], matrices: readonly Matrix[]): Promise<Agreement>;
  merge(job: MergeJob): Promise<MergeResult>;
}
