// A safetensors file read tensor by tensor: a worker that merges some matrices of a large upload reads only those. It is
// opened for every read and closed again, so that a round of a thousand uploads and as many starts needs one descriptor and
// nothing has to be closed.
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import {
  MAX_HEADER_BYTES,
  parseSafetensorsHeader,
  type RawTensor,
  type SafetensorsHeader,
  type TensorEntry,
  toFloat64,
} from '@weft/formats';
import { ServerError } from '../errors.ts';

/** A file as it was when its header was read: places in it mean something only as long as it stays so. */
export interface FileVersion {
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
}

/** Headers of equal bytes are one: a thousand uploads of one grant have one header between them. The oldest goes first. */
const headers = new Map<string, SafetensorsHeader>();
const MOST_HEADERS = 64;

function withFile<T>(path: string, work: (handle: number) => T): T {
  const handle = openSync(path, 'r');
  try {
    return work(handle);
  } finally {
    closeSync(handle);
  }
}

const changed = (path: string): ServerError =>
  new ServerError('file-changed', `${path} was changed while it was being read. Leave it as it is, and start again.`);

function readBytes(handle: number, path: string, begin: number, end: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(end - begin);
  for (let at = 0; at < bytes.length; ) {
    const read = readSync(handle, bytes, at, bytes.length - at, begin + at);
    if (read === 0) throw changed(path);
    at += read;
  }
  return bytes;
}

/** The bytes of one tensor. Throws ServerError 'file-changed' when the file is no longer what it was, or a system error. */
export function readTensor(
  { path, bytes, modifiedMs }: FileVersion,
  { dtype, shape, begin, end }: TensorEntry,
): RawTensor {
  return withFile(path, (handle) => {
    const now = fstatSync(handle);
    if (now.size !== bytes || now.mtimeMs !== modifiedMs) throw changed(path);
    return { dtype, shape, bytes: readBytes(handle, path, begin, end) };
  });
}

/** Throws as parseSafetensorsHeader; `called` is what its messages call the file. */
function headerOf(head: Uint8Array, fileBytes: number, called: string): SafetensorsHeader {
  const key = `${createHash('sha256').update(head).digest('hex')}/${fileBytes}`;
  const header = headers.get(key) ?? parseSafetensorsHeader(head, fileBytes, called);
  headers.delete(key);
  headers.set(key, header);
  const [oldest] = headers.keys();
  if (headers.size > MOST_HEADERS && oldest !== undefined) headers.delete(oldest);
  return header;
}

export class TensorFile {
  readonly version: FileVersion;
  readonly header: SafetensorsHeader;

  /** Reads the header. Throws FormatError, calling the file `called`, when it is not well-formed, or a system error. */
  constructor(path: string, called = path) {
    const { version, head } = withFile(path, (handle) => {
      const { size, mtimeMs } = fstatSync(handle);
      const prefix = readBytes(handle, path, 0, Math.min(8, size));
      const length = prefix.length < 8 ? 0 : Number(new DataView(prefix.buffer).getBigUint64(0, true));
      // A length that cannot be is for the parser to name, not for us to read.
      const whole = length > MAX_HEADER_BYTES ? 8 : 8 + length;
      const head = readBytes(handle, path, 0, Math.min(size, whole));
      return { version: { path, bytes: size, modifiedMs: mtimeMs }, head };
    });
    this.version = version;
    this.header = headerOf(head, version.bytes, called);
  }

  has(name: string): boolean {
    return this.header.entries.has(name);
  }

  /** Throws RangeError when the file has no such tensor, and as {@link readTensor}. */
  read(name: string): RawTensor {
    const entry = this.header.entries.get(name);
    if (!entry) throw new RangeError(`${this.version.path} has no tensor ${name}.`);
    return readTensor(this.version, entry);
  }

  float64(name: string): Float64Array {
    return toFloat64(this.read(name), name);
  }
}
