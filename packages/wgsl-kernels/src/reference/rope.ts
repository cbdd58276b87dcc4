// Rotary position embedding (Su et al. 2021) in float64, rotate-half: element i of a head turns with element i + headSize/2.
import { at, build, type Numbers } from './numbers.ts';

export interface RopeShape {
  readonly heads: number;
  readonly headSize: number;
  /** [N]: row of cos and sin by which each row of x turns. */
  readonly positions: Numbers;
}

/** x [N, heads·headSize] turned by the angles whose cos and sin are [P, headSize/2]; direction −1 turns back. */
export function rope(x: Numbers, cos: Numbers, sin: Numbers, shape: RopeShape, direction: 1 | -1): Float64Array {
  const { heads, headSize, positions } = shape;
  const half = headSize / 2;
  return build(x.length, (i) => {
    const place = i % headSize;
    const pair = place % half;
    const angle = at(positions, Math.floor(i / (heads * headSize))) * half + pair;
    const cosine = at(cos, angle);
    const sine = direction * at(sin, angle);
    const low = i - place + pair;
    return place < half
      ? at(x, low) * cosine - at(x, low + half) * sine
      : at(x, low + half) * cosine + at(x, low) * sine;
  });
}
