// The global update of every adapted matrix as a file: U, σ, V by module, float64, as flexlora keeps them.

import { type LowRank, zeroUpdate } from '@weft/flexlora';
import type { TensorToWrite } from '@weft/formats';
import type { Matrix } from '../runs/grants.ts';
import type { TensorFile } from './tensor-file.ts';

/** The state of one matrix; null for the file means version 0, which changes nothing. */
export function readState(file: TensorFile | null, matrix: Matrix): LowRank {
  if (!file) return zeroUpdate(matrix);
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

export function stateTensors(module: string, { rank, out, in: columns, u, sigma, v }: LowRank): TensorToWrite[] {
  return [
    { name: `${module}.u`, dtype: 'F64', shape: [rank, out], data: u },
    { name: `${module}.sigma`, dtype: 'F64', shape: [rank], data: sigma },
    { name: `${module}.v`, dtype: 'F64', shape: [rank, columns], data: v },
  ];
}
