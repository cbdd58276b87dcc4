// The hash tree over a round's uploads, as RFC 9162 (Certificate Transparency) builds it: leaves and nodes are hashed under
// different prefixes, and a tree of n leaves splits at the largest power of two below n. All hashes are hexadecimal.
import { bytesOfHex, hexOf, sha256Of, utf8 } from './bytes.ts';

const LEAF = 0x00;
const NODE = 0x01;

function prefixed(prefix: number, ...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(1 + parts.reduce((sum, part) => sum + part.length, 0));
  bytes[0] = prefix;
  let at = 1;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Hash of a leaf whose content is `text`. */
export async function leafHash(text: string): Promise<string> {
  return hexOf(await sha256Of(prefixed(LEAF, utf8(text))));
}

async function nodeHash(left: string, right: string): Promise<string> {
  return hexOf(await sha256Of(prefixed(NODE, bytesOfHex(left), bytesOfHex(right))));
}

/** Largest power of two below `size`, for a size of 2 or more. */
const splitOf = (size: number): number => 2 ** Math.ceil(Math.log2(size) - 1);

/** Root over the hashes of leaves; that of no leaves is the SHA-256 of nothing. */
export async function treeRoot(leaves: readonly string[]): Promise<string> {
  const [only] = leaves;
  if (only === undefined) return hexOf(await sha256Of(new Uint8Array()));
  if (leaves.length === 1) return only;
  const split = splitOf(leaves.length);
  const [left, right] = await Promise.all([treeRoot(leaves.slice(0, split)), treeRoot(leaves.slice(split))]);
  return nodeHash(left, right);
}

/** The hashes beside the way from leaf `index` up to the root, lowest first. Throws RangeError for no such leaf. */
export async function inclusionPath(leaves: readonly string[], index: number): Promise<string[]> {
  if (!Number.isInteger(index) || index < 0 || index >= leaves.length) {
    throw new RangeError(`A tree of ${leaves.length} leaves has no leaf ${index}.`);
  }
  if (leaves.length === 1) return [];
  const split = splitOf(leaves.length);
  const [left, right] = [leaves.slice(0, split), leaves.slice(split)];
  return index < split
    ? [...(await inclusionPath(left, index)), await treeRoot(right)]
    : [...(await inclusionPath(right, index - split)), await treeRoot(left)];
}

/** The root that this path leads to from a leaf; null for a path that does not fit a tree of this size (RFC 9162, 2.1.3.2). */
export async function rootFromPath(
  leaf: string,
  { index, size, path }: { readonly index: number; readonly size: number; readonly path: readonly string[] },
): Promise<string | null> {
  if (index < 0 || index >= size) return null;
  let node = index;
  let last = size - 1;
  let root = leaf;
  for (const beside of path) {
    if (last === 0) return null;
    if (node % 2 === 1 || node === last) {
      root = await nodeHash(beside, root);
      // A node without a neighbour stands for itself further up.
      while (node % 2 === 0 && node !== 0) {
        node = Math.floor(node / 2);
        last = Math.floor(last / 2);
      }
    } else root = await nodeHash(root, beside);
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 ? root : null;
}
