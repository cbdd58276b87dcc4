// The global update of every adapted matrix as a file, float64, as flexlora keeps it: U, σ, V by module, or averaged factors
// and their scale.

import { isLowRank, type State, zeroUpdate } from '@weft/flexlora';
import type { TensorToWrite } from '@weft/formats';
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
  const sigma = file.float64(`${matrix.module}.sigma`);
  return {
    out: matrix.out,
    in: matrix.in,
    rank: sigma.length,
    u: file.float64(`${matrix.module}.u`),
    sigma,
    v: file.float64(`${matrix.module}.v`),
  };
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
  const { u, sigma, v } = state;
  return [
    { name: `${module}.u`, dtype: 'F64', shape: [rank, out], data: u },
    { name: `${module}.sigma`, dtype: 'F64', shape: [rank], data: sigma },
    { name: `${module}.v`, dtype: 'F64', shape: [rank, columns], data: v },
  ];
}
