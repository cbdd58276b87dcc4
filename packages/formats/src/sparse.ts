// Sparse updates ΔW of the adapted matrices, the first stage of SLoRA (Babakniya et al., 2023, arXiv 2308.06522): where their
// elements lie follows from a seed, so that files hold values alone. Every row has equally many, which no kernel has to
// balance; else the places are uniformly random.

import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import { FormatError } from './errors.ts';
import { readSafetensors, toFloat32 } from './safetensors.ts';
import { writeSafetensors } from './safetensors-write.ts';

/** Which elements of every matrix may differ from 0. */
export interface SparseSpec {
  /** Share of the elements of a row, in (0, 1]. */
  readonly density: number;
  /** Of the places: one for all clients and rounds of a run. */
  readonly seed: string;
}

/** A matrix [out, in] that carries a sparse update. */
export interface SparseTarget {
  readonly module: string;
  readonly out: number;
  readonly in: number;
}

/** The update of one matrix. */
export interface SparseUpdate extends SparseTarget {
  readonly perRow: number;
  /** [out, perRow], in the order of {@link sparseColumns}. */
  readonly values: Float32Array;
}

/** Elements of a row: the nearest whole number to density · in, at least one. */
export const elementsPerRow = ({ density }: Pick<SparseSpec, 'density'>, inner: number): number =>
  Math.min(inner, Math.max(1, Math.round(density * inner)));

/** Bytes of the values of all matrices in float32, without a file's header. */
export const sparseBytes = (spec: Pick<SparseSpec, 'density'>, targets: readonly SparseTarget[]): number =>
  targets.reduce((sum, { out, in: inner }) => sum + 4 * out * elementsPerRow(spec, inner), 0);

/** FNV-1a over the UTF-16 units of seed, a zero and the module's name. */
function generatorOf(seed: string, module: string) {
  let hash = 0x811c9dc5;
  const text = `${seed}\0${module}`;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return xoroshiro128plus(hash | 0);
}

/**
 * The columns of a matrix's elements, row after row, ascending within each: [out, perRow]. Every row is a sample without
 * repetition by Floyd's algorithm (Bentley and Floyd, 1987) from xoroshiro128+.
 */
export function sparseColumns(spec: SparseSpec, { module, out, in: inner }: SparseTarget): Uint32Array {
  const perRow = elementsPerRow(spec, inner);
  const generator = generatorOf(spec.seed, module);
  const columns = new Uint32Array(out * perRow);
  // The last row (from 1) that took a column.
  const takenBy = new Uint32Array(inner);
  for (let row = 0; row < out; row += 1) {
    const own = columns.subarray(row * perRow, (row + 1) * perRow);
    for (let k = 0; k < perRow; k += 1) {
      const last = inner - perRow + k;
      const drawn = Math.floor(uniformFloat64(generator) * (last + 1));
      const column = takenBy[drawn] === row + 1 ? last : drawn;
      takenBy[column] = row + 1;
      own[k] = column;
    }
    own.sort();
  }
  return columns;
}

const SUFFIX = '.sparse_delta';

/** Name of a matrix's values in a file: `model.layers.0.self_attn.q_proj.sparse_delta`. */
export const sparseTensorName = (module: string): string => `${module}${SUFFIX}`;

/** The module of such a name; null for any other name. */
export const parseSparseTensorName = (name: string): string | null =>
  name.length > SUFFIX.length && name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : null;

/** The values as one safetensors blob. */
export const writeSparse = (updates: Iterable<SparseUpdate>): Uint8Array =>
  writeSafetensors(
    Array.from(updates, ({ module, out, perRow, values }) => ({
      name: sparseTensorName(module),
      dtype: 'F32' as const,
      shape: [out, perRow],
      data: values,
    })),
    { format: 'pt' },
  );

/** The values of exactly these matrices. Throws FormatError 'adapter-tensor' naming the tensor at fault. */
export function readSparse(
  bytes: Uint8Array,
  spec: Pick<SparseSpec, 'density'>,
  targets: readonly SparseTarget[],
  file = 'the sparse update',
): Map<string, SparseUpdate> {
  const { tensors } = readSafetensors(bytes, file);
  const fail = (what: string): never => {
    throw new FormatError('adapter-tensor', `${file}: ${what}.`);
  };
  const updates = new Map(
    targets.map(({ module, out, in: inner }): [string, SparseUpdate] => {
      const name = sparseTensorName(module);
      const tensor = tensors.get(name) ?? fail(`${name} is missing`);
      const perRow = elementsPerRow(spec, inner);
      if (tensor.shape.length !== 2 || tensor.shape[0] !== out || tensor.shape[1] !== perRow)
        fail(`${name} is [${tensor.shape}] where [${out},${perRow}] is needed`);
      const values = toFloat32(tensor, name);
      if (!values.every(Number.isFinite)) fail(`${name} holds NaN or infinity`);
      return [module, { module, out, in: inner, perRow, values }];
    }),
  );
  for (const name of tensors.keys())
    if (!updates.has(parseSparseTensorName(name) ?? '')) fail(`${name} belongs to no adapted matrix`);
  return updates;
}
