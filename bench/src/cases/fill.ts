// Numbers to compute with, the same in every run: uniform in [−1, 1), from a linear congruential generator, since millions are
// wanted in no time and none of their properties matters but their size.

/** `count` numbers; streams of different `seed` differ. */
export function filled(count: number, seed: number): Float32Array {
  const values = new Float32Array(count);
  let state = (Math.imul(seed, 0x9e3779b9) ^ 0x5bd1e995) >>> 0;
  for (let i = 0; i < count; i += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    values[i] = state / 2 ** 31 - 1;
  }
  return values;
}
