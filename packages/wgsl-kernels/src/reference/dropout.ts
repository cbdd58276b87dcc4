// Dropout (Srivastava et al. 2014) as PyTorch scales it, with the bits of the mask the shader draws: not random numbers in
// sequence but a hash of (seed, salt, element), so that the backward pass needs no mask in memory.
import { at, build, type Numbers } from './numbers.ts';

/** First of the four words of pcg4d (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020). */
export function pcg4d(x: number, y: number, z: number, w: number): number {
  const step = (a: number): number => Math.imul(a, 1_664_525) + 1_013_904_223;
  let [a, b, c, d] = [step(x) | 0, step(y) | 0, step(z) | 0, step(w) | 0];
  const mix = (): void => {
    a = (a + Math.imul(b, d)) | 0;
    b = (b + Math.imul(c, a)) | 0;
    c = (c + Math.imul(a, b)) | 0;
    d = (d + Math.imul(b, c)) | 0;
  };
  mix();
  [a, b, c, d] = [a ^ (a >>> 16), b ^ (b >>> 16), c ^ (c >>> 16), d ^ (d >>> 16)];
  mix();
  return a >>> 0;
}

export interface DropoutSettings {
  /** Share of elements dropped, in [0, 1). */
  readonly rate: number;
  /** Two words that change from step to step. */
  readonly seed: readonly [number, number];
  /** A word that differs between places in a model. */
  readonly salt: number;
}

/** 1 for every element kept, 0 for every element dropped. */
export const dropoutMask = (count: number, { rate, seed, salt }: DropoutSettings): Float64Array =>
  build(count, (i) => (pcg4d(i, salt, seed[0], seed[1]) >= Math.floor(rate * 2 ** 32) ? 1 : 0));

/** x · mask / (1 − rate), which is its own gradient. */
export function dropout(x: Numbers, settings: DropoutSettings): Float64Array {
  const mask = dropoutMask(x.length, settings);
  return build(x.length, (i) => (at(x, i) * at(mask, i)) / (1 - settings.rate));
}
