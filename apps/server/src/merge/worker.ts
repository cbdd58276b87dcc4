// Entry of a merge process: one job at a time, files in, a file out. All mathematics is flexlora's.
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import {
  type Agreement,
  agreementOf,
  changeParts,
  type Factors,
  inHand,
  type MatrixReport,
  type MatrixUpdate,
  normOfSum,
  readOutSide,
  readOutStart,
  strategyByName,
  sumAgreements,
  truncationErrors,
} from '@weft/flexlora';
import {
  alphaOf,
  type LoraFactors,
  peftTensorName,
  rankOf,
  scaleOf,
  type TensorToWrite,
  toFloat32,
  writeFactors,
  writeSafetensors,
} from '@weft/formats';
import type { Grant, MatrixSpectrum } from '@weft/protocol';
import type { Matrix } from '../runs/grants.ts';
import { lazyFactors } from './lazy-factors.ts';
import type { Change, MergeJob, ReadOutJob, UploadFiles, WeightedUpload } from './merger.ts';
import { mergeElements, sparseAgreement, sparseChange, sparseStart } from './sparse.ts';
import { readState, readVelocity, stateTensors, velocityTensors } from './state-file.ts';
import { TensorFile } from './tensor-file.ts';

export interface ReadOutTask extends ReadOutJob {
  /** File to write. */
  readonly output: string;
}

export interface ChangeTask {
  readonly upload: UploadFiles;
  readonly matrices: readonly Matrix[];
}

export interface AgreementTask {
  readonly uploads: readonly WeightedUpload[];
  readonly matrices: readonly Matrix[];
}

export interface MergeTask extends MergeJob {
  readonly output: string;
}

export interface MergeTaskResult {
  readonly spectra: MatrixSpectrum[];
  readonly agreement: Agreement;
}

const open = (path: string): TensorFile => new TensorFile(path);

function factorsIn(file: TensorFile, grant: Grant, matrix: Matrix): Factors {
  const { module, out, in: columns } = matrix;
  const rank = rankOf(grant, module);
  const shape = { out, in: columns, rank, scale: scaleOf(alphaOf(grant, module), rank) };
  return lazyFactors(shape, (factor) => {
    const name = peftTensorName(module, factor === 'a' ? 'A' : 'B');
    return toFloat32(file.read(name), name);
  });
}

/** Writes start weights, every matrix of the state at its granted rank, or what the strategy puts beside them. */
export function readOut(task: ReadOutTask): void {
  const { part, strategy, global, matrices, grant, sparse, seed, output } = task;
  if (sparse) {
    writeFileSync(output, sparseStart(task, sparse));
    return;
  }
  const { side } = strategyByName(strategy);
  const file = global === null ? null : open(global);
  const factors = matrices.flatMap<LoraFactors>((matrix) => {
    const { module, out, in: columns } = matrix;
    const state = readState(file, matrix);
    const rank = rankOf(grant, module);
    if (part === 'side') {
      const beside = readOutSide(side, state, rank);
      return beside ? [{ ...beside, module, alpha: beside.rank }] : [];
    }
    const alpha = alphaOf(grant, module);
    const { a, b, scale } = readOutStart(part === 'start' ? side : 'none', state, {
      rank,
      scale: scaleOf(alpha, rank),
      seed: `${seed}/${module}`,
    });
    return [{ module, out, in: columns, rank, alpha, scale, a, b }];
  });
  writeFileSync(output, writeFactors(factors));
}

/** The same product at a larger rank: zeros in the places of directions that were pruned. */
function padded(factors: Factors, rank: number): Factors {
  const { out, in: columns, a, b } = factors;
  if (factors.rank === rank) return factors;
  const wideA = new Float64Array(rank * columns);
  const wideB = new Float64Array(out * rank);
  wideA.set(a);
  for (let row = 0; row < out; row++)
    for (let k = 0; k < factors.rank; k++) wideB[row * rank + k] = b[row * factors.rank + k] ?? 0;
  return { ...factors, rank, a: wideA, b: wideB };
}

/** What an upload changed. No training is exactly 0. */
export function change({ upload, matrices }: ChangeTask): Change {
  if (upload.sparse) return sparseChange(upload, matrices);
  const [end, start] = [open(upload.path), open(upload.startPath)];
  let squares = 0;
  let ofA = false;
  for (const matrix of matrices) {
    const before = inHand(factorsIn(start, upload.startGrant, matrix));
    const after = padded(inHand(factorsIn(end, upload.grant, matrix)), before.rank);
    ofA ||= after.a.some((value, i) => value !== before.a[i]);
    squares += normOfSum(changeParts({ weight: 1, end: after, start: before })) ** 2;
  }
  return { norm: Math.sqrt(squares), ofA };
}

type OpenUpload = ReturnType<typeof opened>[number];

const opened = (uploads: readonly (WeightedUpload & { readonly clip: number })[]) =>
  uploads.map(({ path, startPath, ...upload }) => ({
    ...upload,
    name: basename(path),
    end: open(path),
    start: open(startPath),
  }));

/** Read when asked for. */
const updateIn = ({ name, weight, clip, grant, startGrant, end, start }: OpenUpload, matrix: Matrix): MatrixUpdate => ({
  name,
  weight,
  clip,
  end: factorsIn(end, grant, matrix),
  start: factorsIn(start, startGrant, matrix),
});

/** Compares every change with the weighted sum of all. */
export function agreement({ uploads, matrices }: AgreementTask): Agreement {
  const counted = uploads.map((upload) => ({ ...upload, clip: 1 }));
  if (uploads.some(({ sparse }) => sparse !== null)) return sumAgreements(sparseAgreement(counted, matrices));
  const files = opened(counted);
  return sumAgreements(matrices.map((matrix) => agreementOf(files.map((file) => updateIn(file, matrix)))));
}

/** The next state of one matrix, as it is written and told. */
interface Merged {
  readonly module: string;
  readonly tensors: TensorToWrite[];
  readonly report: MatrixReport;
  readonly velocityTail?: number;
}

/** Merges these matrices one after the other and writes their next state. */
export function mergeMatrices(task: MergeTask): MergeTaskResult {
  const { matrices, uploads, watched, sparse, ranks, output } = task;
  // What is not merged is compared with what is.
  const compared = [...uploads, ...watched.map((upload) => ({ ...upload, weight: 0, clip: 1 }))];
  const [merged, agreements] = sparse
    ? [mergeElements(task, sparse), sparseAgreement(compared, matrices)]
    : mergeFactors(task, compared);
  writeFileSync(output, writeSafetensors(merged.flatMap(({ tensors }) => tensors)));
  return {
    spectra: merged.map(({ module, report, velocityTail }: Merged) => {
      const errors = truncationErrors(report, ranks);
      return {
        module,
        sigma: [...report.sigma],
        effectiveRank: report.effectiveRank,
        p: [...report.p],
        discardedTail: report.discardedTail,
        ...(velocityTail === undefined ? {} : { velocityTail }),
        truncationError: Object.fromEntries(ranks.map((rank, i) => [String(rank), errors[i] ?? 0])),
      };
    }),
    agreement: sumAgreements(agreements),
  };
}

function mergeFactors(
  { strategy, momentum, global, matrices, uploads, stateRank }: MergeTask,
  compared: Parameters<typeof opened>[0],
): [merged: Merged[], agreements: Agreement[]] {
  const { mergeMatrix, needsStart } = strategyByName(strategy);
  const state = global === null ? null : open(global);
  const files = opened(compared);
  const agreements: Agreement[] = [];
  const merged = matrices.map((matrix): Merged => {
    const changes = files.map((file) => updateIn(file, matrix));
    agreements.push(agreementOf(changes));
    const updates = changes
      .slice(0, uploads.length)
      .map((update) => (needsStart || update.clip !== 1 ? update : { ...update, start: null }));
    const current = state ? readState(state, matrix) : null;
    const maxRank = Math.min(matrix.out, matrix.in, stateRank);
    const velocity = state ? readVelocity(state, matrix) : null;
    const merge = { current, updates, maxRank, momentum: { beta: momentum, velocity }, name: matrix.module };
    const { next, report, velocity: moved } = mergeMatrix(merge);
    const tensors = [
      ...stateTensors(matrix.module, next),
      ...(moved ? velocityTensors(matrix.module, moved.value) : []),
    ];
    return { module: matrix.module, tensors, report, ...(moved ? { velocityTail: moved.discardedTail } : {}) };
  });
  return [merged, agreements];
}
