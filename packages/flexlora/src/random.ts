// Uniform numbers that are the same in every engine: xoroshiro128+ seeded from names, no transcendental functions.
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus';

/** FNV-1a over UTF-16 units, with a final mix so that similar names differ in every bit. */
function hash(text: string, basis: number): number {
  let h = basis;
  for (let i = 0; i < text.length; i += 1) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

/** A stream of numbers uniform in [−1, 1), its own for these names. */
export function seededStream(...names: (string | number)[]): () => number {
  const text = names.join('\0');
  // The generator's state must not be all zero; the last word is kept odd.
  const state = [0x811c9dc5, 0x9e3779b9, 0x7f4a7c15].map((basis) => hash(text, basis));
  const generator = xoroshiro128plusFromState([...state, hash(text, 0x1f83d9ab) | 1]);
  return () => 2 * uniformFloat64(generator) - 1;
}
