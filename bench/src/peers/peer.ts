// What a measured library can do, ours and the others alike. Each runs on a device of its own on the one adapter, and each
// call here resolves when the GPU is done with it.
import type { StepData } from '../workload.ts';

/** One product c [M, N] = a [M, K] · b, b [N, K] as in a forward pass (NT) or [K, N] as in a backward one (NN). */
export interface MatmulShape {
  readonly kind: 'NT' | 'NN';
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
}

/** Something to be measured: made once, run often. */
export interface Runnable {
  /** Runs `times` times and waits for the GPU. */
  run(times: number): Promise<void>;
  destroy(): void;
}

/** A training step to be measured. */
export interface StepRunner {
  /** One AdamW step on the batch; resolves with the loss before its update, nats per token. */
  step(): Promise<number>;
  destroy(): void;
}

export interface Library {
  /** With its version. */
  readonly name: string;
  matmul(shape: MatmulShape, a: Float32Array, b: Float32Array): Promise<Runnable & { read(): Promise<Float32Array> }>;
  step(data: StepData): Promise<StepRunner>;
  close(): Promise<void>;
}

/** [rows, columns] as [columns, rows], for a library that is faster with the other layout of a matrix. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1)
    for (let column = 0; column < columns; column += 1) out[column * rows + row] = values[row * columns + column] ?? 0;
  return out;
}
