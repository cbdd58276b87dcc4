// Rounds of sparse updates in a merge process: elements at fixed places instead of factors. Mathematics is flexlora's.
import { basename } from 'node:path';
import { type Agreement, agreementOfElements, type MatrixReport, mergeSparse } from '@weft/flexlora';
import {
  elementsPerRow,
  type SparseSpec,
  type SparseUpdate,
  sparseColumns,
  sparseTensorName,
  type TensorToWrite,
  writeSparse,
} from '@weft/formats';
import type { Matrix } from '../runs/grants.ts';
import type { Change, MergeJob, ReadOutJob, UploadFiles } from './merger.ts';
import { elementTensor, readElements, stateTensors } from './state-file.ts';
import { TensorFile } from './tensor-file.ts';

/** The elements of a version, in float32; zeros in version 0. */
export function sparseStart({ global, matrices }: Pick<ReadOutJob, 'global' | 'matrices'>, sparse: SparseSpec) {
  const file = global === null ? null : new TensorFile(global);
  return writeSparse(
    matrices.map(({ module, out, in: columns }): SparseUpdate => {
      const perRow = elementsPerRow(sparse, columns);
      const kept = readElements(file, module);
      if (file && !kept) throw new RangeError(`The state has no elements of ${module}.`);
      const values = kept ? Float32Array.from(kept) : new Float32Array(out * perRow);
      return { module, out, in: columns, perRow, values };
    }),
  );
}

/** ‖S − S₀‖ over all matrices. */
export function sparseChange({ path, startPath }: UploadFiles, matrices: readonly Matrix[]): Change {
  const [end, start] = [new TensorFile(path), new TensorFile(startPath)];
  const squares = matrices.map(({ module }) => {
    const before = start.float64(sparseTensorName(module));
    return end.float64(sparseTensorName(module)).reduce((sum, value, k) => sum + (value - (before[k] ?? 0)) ** 2, 0);
  });
  return { norm: Math.sqrt(squares.reduce((sum, square) => sum + square, 0)), ofA: false };
}

/** An upload and what it counts with. */
type Counted = UploadFiles & { readonly weight: number; readonly clip: number };

/** Elements are read when it is their turn: those of one upload are held at a time. */
const elementsOf = (uploads: readonly Counted[]) => {
  const files = uploads.map(({ weight, clip, path }) => ({
    weight,
    clip,
    name: basename(path),
    file: new TensorFile(path),
  }));
  return (module: string) =>
    files.map(({ weight, clip, name, file }) => ({
      weight,
      clip,
      name,
      get values() {
        return file.float64(sparseTensorName(module));
      },
    }));
};

/** Compares every change of one round's matrices with the weighted sum of all, matrix by matrix. */
export function sparseAgreement(uploads: readonly Counted[], matrices: readonly Matrix[]): Agreement[] {
  const [first] = uploads;
  const start = first ? new TensorFile(first.startPath) : null;
  const updates = elementsOf(uploads);
  return matrices.map(({ module }) =>
    agreementOfElements(updates(module), start?.float64(sparseTensorName(module)) ?? null),
  );
}

/** The next state of every matrix, as it is written and told. */
export function mergeElements(
  { global, matrices, uploads, keepElements, stateRank }: MergeJob,
  sparse: SparseSpec,
): { readonly module: string; readonly tensors: TensorToWrite[]; readonly report: MatrixReport }[] {
  const state = global === null ? null : new TensorFile(global);
  const updates = elementsOf(uploads);
  return matrices.map((matrix) => {
    const { module, out, in: columns } = matrix;
    const { values, next, report } = mergeSparse({
      out,
      in: columns,
      columns: sparseColumns(sparse, matrix),
      start: readElements(state, module),
      updates: updates(module),
      maxRank: Math.min(out, columns, stateRank),
      name: module,
    });
    const kept = keepElements ? [elementTensor(module, values, out)] : [];
    return { module, tensors: [...stateTensors(module, next), ...kept], report };
  });
}
