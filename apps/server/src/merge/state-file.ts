// The global update of every adapted matrix as a file, float64, as flexlora keeps it: U, σ, V by module, or averaged factors
// and their scale; the server's momentum where there is one; and the elements of a sparse update that rounds go on from,
// whose decomposition is there as well, so that every version is read out alike.

import { isLowRank, type LowRank, type State, zeroUpdate } from '@weft/flexlora';
import { sparseTensorName, type TensorToWrite } from '@weft/formats';
import type { Matrix } from '../runs/grants.ts';
import type { TensorFile } from './tensor-file.ts';

/** The state of one matrix; null for the file means version 0, which changes nothing. */
export function readState(file: TensorFile | null, matrix: Matrix): State {
  if (!file) return zeroUpdate(matrix);
  if (file.has(`${matrix.module}.a`)) {
    const a = file.float64(`${matrix.module}.a`);
    const [scale = Number.NaN] = file.float64(`${matrix.module}.scale`);
    const b = file.float64(`${matrix.module}.b`);
    return { out: matrix.out, in: matrix.in, rank: a.length / matrix.in, scale, a, b };
  }
  return readLowRank(file, matrix.module, matrix);
}

/** The elements of a sparse update [out, perRow]; null where the file has none. */
export const readElements = (file: TensorFile | null, module: string): Float64Array | null => {
  const name = sparseTensorName(module);
  return file?.has(name) ? file.float64(name) : null;
};

export const elementTensor = (module: string, values: Float64Array, out: number): TensorToWrite => ({
  name: sparseTensorName(module),
  dtype: 'F64',
  shape: [out, values.length / out],
  data: values,
});

/** The server's momentum of one matrix; null where none was kept. */
export const readVelocity = (file: TensorFile, matrix: Matrix): LowRank | null => {
  const name = velocityName(matrix.module);
  return file.has(`${name}.sigma`) ? readLowRank(file, name, matrix) : null;
};

const velocityName = (module: string): string => `${module}.velocity`;

function readLowRank(file: TensorFile, name: string, { out, in: columns }: Matrix): LowRank {
  const sigma = file.float64(`${name}.sigma`);
  return { out, in: columns, rank: sigma.length, u: file.float64(`${name}.u`), sigma, v: file.float64(`${name}.v`) };
}

export function stateTensors(module: string, state: State): TensorToWrite[] {
  const { rank, out, in: columns } = state;
  if (!isLowRank(state)) {
    return [
      { name: `${module}.a`, dtype: 'F64', shape: [rank, columns], data: Float64Array.from(state.a) },
      { name: `${module}.b`, dtype: 'F64', shape: [out, rank], data: Float64Array.from(state.b) },
      { name: `${module}.scale`, dtype: 'F64', shape: [1], data: Float64Array.of(state.scale) },
    ];
  }
  return lowRankTensors(module, state);
}

export const velocityTensors = (module: string, velocity: LowRank): TensorToWrite[] =>
  lowRankTensors(velocityName(module), velocity);

const lowRankTensors = (name: string, { rank, out, in: columns, u, sigma, v }: LowRank): TensorToWrite[] => [
  { name: `${name}.u`, dtype: 'F64', shape: [rank, out], data: u },
  { name: `${name}.sigma`, dtype: 'F64', shape: [rank], data: sigma },
  { name: `${name}.v`, dtype: 'F64', shape: [rank, columns], data: v },
];
