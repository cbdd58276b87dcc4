// A file read in parts: bytes in memory, a file on disk, a blob of a browser. Who opens the file implements it; nothing here
// does, so that a checkpoint larger than memory is read alike everywhere.
import { FormatError } from './errors.ts';
import { MAX_HEADER_BYTES, parseSafetensorsHeader, type SafetensorsHeader } from './safetensors.ts';

export interface ByteSource {
  /** Bytes of the whole file. */
  readonly size: number;
  /** `length` bytes from `offset` on. May be a view; whoever reads does not change it. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** Bytes that are there already. */
export const inMemory = (bytes: Uint8Array): ByteSource => ({
  size: bytes.length,
  read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
});

/** Reads exactly this part. Throws FormatError 'safetensors-truncated' when the source gives fewer bytes. */
export async function readPart(source: ByteSource, offset: number, length: number, file: string): Promise<Uint8Array> {
  const bytes = await source.read(offset, length);
  if (bytes.length === length) return bytes;
  throw new FormatError(
    'safetensors-truncated',
    `${file} gave ${bytes.length} of the ${length} bytes at byte ${offset}. It changed or is damaged; fetch it again.`,
  );
}

/** The text of a small file. Throws FormatError as {@link readPart}. */
export const readText = async (source: ByteSource, file: string): Promise<string> =>
  new TextDecoder().decode(await readPart(source, 0, source.size, file));

/** The header of a safetensors file, without its data. Throws as {@link parseSafetensorsHeader}. */
export async function readSafetensorsHeader(source: ByteSource, file: string): Promise<SafetensorsHeader> {
  const prefix = await readPart(source, 0, Math.min(8, source.size), file);
  const length = prefix.length < 8 ? 0 : new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  // A length that cannot be is for the parser to name, not for us to read.
  const whole = length > MAX_HEADER_BYTES ? 0 : 8 + Number(length);
  const head = await readPart(source, 0, Math.max(prefix.length, Math.min(source.size, whole)), file);
  return parseSafetensorsHeader(head, source.size, file);
}
