// Seeded random numbers for tests and benches: the same in Node and in the browser.
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

export interface Random {
  /** `count` float32 numbers, uniform in [−scale, scale). */
  floats(count: number, scale?: number): Float32Array;
  /** `count` integers, uniform in [0, limit). */
  integers(count: number, limit: number): Int32Array;
}

/** Numbers that depend on `seed` and the order of the calls only. */
export function randomNumbers(seed: number): Random {
  const generator = xoroshiro128plus(seed);
  return {
    floats: (count, scale = 1) =>
      Float32Array.from({ length: count }, () => scale * (2 * uniformFloat64(generator) - 1)),
    integers: (count, limit) => Int32Array.from({ length: count }, () => Math.floor(limit * uniformFloat64(generator))),
  };
}
