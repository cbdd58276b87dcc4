// Rotary position embedding (Su et al. 2021) in float64, rotate-half: element i of a head turns with element i + headSize/2.
import { at, build, type Numbers } from './numbers.ts';

export interface RopeShape {
  readonly heads: number;
  readonly headSize: number;
  /** Row n stands at position n mod sequence. */
  readonly sequence: number;
}

/** x [N, heads·headSize] turned by the angles whose cos and sin are [sequence, headSize/2]; direction −1 turns back. */
export function rope(x: Numbers, cos: Numbers, sin: Numbers, shape: RopeShape, direction: 1 | -1): Float64Array {
  const { heads, headSize, sequence } = shape;
  const half = headSize / 2;
  return build(x.length, (i) => {
    const place = i % headSize;
    const pair = place % half;
    const position = Math.floor(i / (heads * headSize)) % sequence;
    const cosine = at(cos, position * half + pair);
    const sine = direction * at(sin, position * half + pair);
    const low = i - place + pair;
    return place < half
      ? at(x, low) * cosine - at(x, low + half) * sine
      : at(x, low + half) * cosine + at(x, low) * sine;
  });
}
