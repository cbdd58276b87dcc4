// Factors that are read when a merge takes them and dropped after, so that merging a thousand uploads does not hold a thousand.
import type { Factors } from '@weft/flexlora';

/** Updates whose arrays stay at hand, so that code that asks an update twice does not read it twice. */
const AT_HAND = 4;

interface Held {
  a: Float32Array | null;
  b: Float32Array | null;
}

const atHand: Held[] = [];

/** `read` gives one factor's elements, row-major; it is called again when the update has been dropped meanwhile. */
export function lazyFactors(
  { out, in: inner, rank, scale }: Omit<Factors, 'a' | 'b'>,
  read: (factor: 'a' | 'b') => Float32Array,
): Factors {
  const held: Held = { a: null, b: null };
  const take = (factor: 'a' | 'b'): Float32Array => {
    const values = held[factor] ?? read(factor);
    held[factor] = values;
    if (!atHand.includes(held)) atHand.push(held);
    const oldest = atHand.length > AT_HAND ? atHand.shift() : undefined;
    if (oldest) Object.assign(oldest, { a: null, b: null } satisfies Held);
    return values;
  };
  return {
    out,
    in: inner,
    rank,
    scale,
    get a() {
      return take('a');
    },
    get b() {
      return take('b');
    },
  };
}
