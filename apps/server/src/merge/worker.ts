// Entry of a merge process: one job at a time, files in, a file out. All mathematics is flexlora's.
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Factors, normOfSum, readOutSide, readOutStart, strategyByName } from '@weft/flexlora';
import {
  alphaOf,
  type LoraFactors,
  peftTensorName,
  rankOf,
  scaleOf,
  writeFactors,
  writeSafetensors,
} from '@weft/formats';
import type { Grant, MatrixSpectrum } from '@weft/protocol';
import type { Matrix } from '../runs/grants.ts';
import type { Change, MergeJob, ReadOutJob, UploadFiles } from './merger.ts';
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

export interface MergeTask extends MergeJob {
  readonly output: string;
}

export interface MergeTaskResult {
  readonly spectra: MatrixSpectrum[];
}

/** Runs `work` with the files open. */
function withFiles<T>(paths: readonly (string | null)[], work: (files: (TensorFile | null)[]) => T): T {
  const files: (TensorFile | null)[] = [];
  try {
    for (const path of paths) files.push(path === null ? null : new TensorFile(path));
    return work(files);
  } finally {
    for (const file of files) file?.close();
  }
}

function readFactors(file: TensorFile | null | undefined, grant: Grant, matrix: Matrix): Factors {
  if (!file) throw new RangeError('A file of factors is not open.');
  const { module, out, in: columns } = matrix;
  const rank = rankOf(grant, module);
  return {
    out,
    in: columns,
    rank,
    scale: scaleOf(alphaOf(grant, module), rank),
    a: file.float64(peftTensorName(module, 'A')),
    b: file.float64(peftTensorName(module, 'B')),
  };
}

/** Writes start weights, every matrix of the state at its granted rank, or what the strategy puts beside them. */
export function readOut({ part, strategy, global, matrices, grant, seed, output }: ReadOutTask): void {
  const { side } = strategyByName(strategy);
  const factors = withFiles([global], ([file = null]) =>
    matrices.flatMap<LoraFactors>((matrix) => {
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
    }),
  );
  writeFileSync(output, writeFactors(factors));
}

/** What an upload changed. Its product is written as s·(B − B₀)·A + s·B₀·(A − A₀), so that no training is exactly 0. */
export function change({ upload, matrices }: ChangeTask): Change {
  return withFiles([upload.path, upload.startPath], ([end, start]) => {
    let squares = 0;
    let ofA = false;
    for (const matrix of matrices) {
      const after = readFactors(end, upload.grant, matrix);
      const before = readFactors(start, upload.grant, matrix);
      const b = Float64Array.from(after.b, (value, i) => value - (before.b[i] ?? 0));
      const a = Float64Array.from(after.a, (value, i) => value - (before.a[i] ?? 0));
      ofA ||= a.some((value) => value !== 0);
      squares +=
        normOfSum([
          { weight: 1, factors: { ...after, b } },
          { weight: 1, factors: { ...before, a } },
        ]) ** 2;
    }
    return { norm: Math.sqrt(squares), ofA };
  });
}

/** Merges these matrices one after the other and writes their next state. */
export function mergeMatrices(task: MergeTask): MergeTaskResult {
  const { strategy, momentum, global, matrices, uploads, stateRank, output } = task;
  const { mergeMatrix, needsStart } = strategyByName(strategy);
  const paths = [
    global,
    ...uploads.map((upload) => upload.path),
    ...uploads.map((upload) => (needsStart ? upload.startPath : null)),
  ];
  const merged = withFiles(paths, ([state = null, ...files]) =>
    matrices.map((matrix) => {
      const updates = uploads.map(({ weight, grant, path }, i) => {
        const start = needsStart ? readFactors(files[uploads.length + i], grant, matrix) : null;
        return { weight, end: readFactors(files[i], grant, matrix), start, name: basename(path) };
      });
      const current = state ? readState(state, matrix) : null;
      const maxRank = Math.min(matrix.out, matrix.in, stateRank);
      const velocity = state ? readVelocity(state, matrix) : null;
      const merge = { current, updates, maxRank, momentum: { beta: momentum, velocity }, name: matrix.module };
      return { matrix, ...mergeMatrix(merge) };
    }),
  );
  const tensors = merged.flatMap(({ matrix, next, velocity }) => [
    ...stateTensors(matrix.module, next),
    ...(velocity ? velocityTensors(matrix.module, velocity.value) : []),
  ]);
  writeFileSync(output, writeSafetensors(tensors));
  return {
    spectra: merged.map(({ matrix, report, velocity }) => ({
      module: matrix.module,
      sigma: [...report.sigma],
      effectiveRank: report.effectiveRank,
      p: [...report.p],
      discardedTail: report.discardedTail,
      ...(velocity ? { velocityTail: velocity.discardedTail } : {}),
    })),
  };
}
