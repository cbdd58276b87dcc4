// The files a run hands out: base model and tasks, each with its SHA-256 and that of its pieces. Served from where they lie.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { canonicalJson, type Manifest, type ManifestFile, PIECE_BYTES, type RunIdentity } from '@weft/protocol';

export interface ServedFile {
  readonly entry: ManifestFile;
  readonly path: string;
}

export const sha256Text = (text: string): string => createHash('sha256').update(text, 'utf8').digest('hex');

/** Reads a file once and hashes it whole and in pieces. */
export async function describeFile(
  path: string,
  what: Pick<ManifestFile, 'kind' | 'task' | 'name'>,
): Promise<ServedFile> {
  const whole = createHash('sha256');
  const pieces: string[] = [];
  let piece = createHash('sha256');
  let inPiece = 0;
  let bytes = 0;
  const endPiece = () => {
    pieces.push(piece.digest('hex'));
    piece = createHash('sha256');
    inPiece = 0;
  };
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    whole.update(chunk);
    bytes += chunk.length;
    for (let at = 0; at < chunk.length; ) {
      const taken = Math.min(chunk.length - at, PIECE_BYTES - inPiece);
      piece.update(chunk.subarray(at, at + taken));
      inPiece += taken;
      at += taken;
      if (inPiece === PIECE_BYTES) endPiece();
    }
  }
  if (inPiece > 0) endPiece();
  return { entry: { ...what, bytes, sha256: whole.digest('hex'), pieces }, path };
}

export const hashManifest = (manifest: Manifest): string => sha256Text(canonicalJson(manifest));
export const hashIdentity = (identity: RunIdentity): string => sha256Text(canonicalJson(identity));
