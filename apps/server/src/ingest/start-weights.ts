// Start weights in memory, with the norm of every tensor: all clients of a rank are compared with the same file, which is
// read and measured once. The files used last are kept, up to a number of bytes.
import { readFile } from 'node:fs/promises';
import { type RawTensor, readSafetensors, toFloat32 } from '@weft/formats';

/** The first rows and columns of a start tensor, float32, and their Frobenius norm. */
export interface StartPart {
  readonly values: Float32Array;
  readonly norm: number;
}

export class StartWeights {
  readonly #tensors: ReadonlyMap<string, RawTensor>;
  readonly #parts = new Map<string, StartPart>();

  constructor(bytes: Uint8Array) {
    this.#tensors = readSafetensors(bytes, 'the start weights').tensors;
  }

  /** Of shape `[rows, columns]`: the whole tensor, or what pruning leaves of it. Throws RangeError for an unknown name. */
  part(name: string, shape: readonly number[]): StartPart {
    const key = `${name} ${shape}`;
    const known = this.#parts.get(key);
    if (known) return known;
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new RangeError(`The start weights lack ${name}.`);
    const values = firstPart(toFloat32(tensor, name), tensor.shape, shape);
    const part = { values, norm: Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)) };
    this.#parts.set(key, part);
    return part;
  }
}

function firstPart(values: Float32Array, from: readonly number[], to: readonly number[]): Float32Array {
  const [, wide = 0] = from;
  const [rows = 0, columns = 0] = to;
  if (columns === wide) return values.subarray(0, rows * columns);
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor(i / columns);
    return values[row * wide + (i - row * columns)] ?? 0;
  });
}

const MOST_BYTES = 128 * 1024 * 1024;

export class StartCache {
  readonly #pathOf: (sha256: string) => string;
  /** Least recently used first. */
  readonly #kept = new Map<string, { readonly weights: Promise<StartWeights>; bytes: number }>();

  constructor(pathOf: (sha256: string) => string) {
    this.#pathOf = pathOf;
  }

  /** Rejects with a system error when the file cannot be read. */
  get(sha256: string): Promise<StartWeights> {
    const entry = this.#kept.get(sha256) ?? this.#read(sha256);
    this.#kept.delete(sha256);
    this.#kept.set(sha256, entry);
    return entry.weights;
  }

  #read(sha256: string) {
    const entry = {
      bytes: 0,
      weights: readFile(this.#pathOf(sha256)).then(
        (bytes) => {
          entry.bytes = bytes.length;
          this.#shrink();
          return new StartWeights(bytes);
        },
        (error: unknown) => {
          this.#kept.delete(sha256);
          throw error;
        },
      ),
    };
    return entry;
  }

  #shrink(): void {
    let total = 0;
    for (const { bytes } of this.#kept.values()) total += bytes;
    for (const [sha256, { bytes }] of this.#kept) {
      if (total <= MOST_BYTES || this.#kept.size === 1) return;
      this.#kept.delete(sha256);
      total -= bytes;
    }
  }
}
