// A safetensors file read tensor by tensor: a worker that merges some matrices of a large upload reads only those.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { parseSafetensorsHeader, type RawTensor, type SafetensorsHeader, toFloat64 } from '@weft/formats';

export class TensorFile {
  readonly #path: string;
  readonly #handle: number;
  readonly #header: SafetensorsHeader;

  /** Throws FormatError when the file is not well-formed. Close it. */
  constructor(path: string) {
    this.#path = path;
    this.#handle = openSync(path, 'r');
    try {
      const { size } = fstatSync(this.#handle);
      const prefix = this.#bytes(0, Math.min(8, size));
      const length = prefix.length < 8 ? 0 : Number(new DataView(prefix.buffer).getBigUint64(0, true));
      this.#header = parseSafetensorsHeader(this.#bytes(0, Math.min(size, 8 + length)), size, path);
    } catch (error) {
      closeSync(this.#handle);
      throw error;
    }
  }

  #bytes(begin: number, end: number): Uint8Array {
    const bytes = new Uint8Array(end - begin);
    for (let at = 0; at < bytes.length; ) {
      const read = readSync(this.#handle, bytes, at, bytes.length - at, begin + at);
      if (read === 0) throw new RangeError(`${this.#path} ends at byte ${begin + at}.`);
      at += read;
    }
    return bytes;
  }

  has(name: string): boolean {
    return this.#header.entries.has(name);
  }

  /** Throws RangeError when the file has no such tensor. */
  read(name: string): RawTensor {
    const entry = this.#header.entries.get(name);
    if (!entry) throw new RangeError(`${this.#path} has no tensor ${name}.`);
    return { dtype: entry.dtype, shape: entry.shape, bytes: this.#bytes(entry.begin, entry.end) };
  }

  float64(name: string): Float64Array {
    return toFloat64(this.read(name), name);
  }

  close(): void {
    closeSync(this.#handle);
  }
}
