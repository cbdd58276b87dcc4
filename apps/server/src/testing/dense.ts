// What tests compute by themselves of a merge: products of factors and their sums, dense and in float64, by nothing of flexlora's.
import type { Factors } from './volunteer.ts';

/** s·B·A of every matrix, dense and in float64. */
export function products(factors: Factors): Map<string, Float64Array> {
  return new Map(
    [...factors].map(([module, { a, b, rank, scale, out, in: columns }]) => {
      const product = new Float64Array(out * columns);
      for (let i = 0; i < out; i++) {
        for (let k = 0; k < rank; k++) {
          const left = scale * (b[i * rank + k] ?? 0);
          for (let j = 0; j < columns; j++)
            product[i * columns + j] = (product[i * columns + j] ?? 0) + left * (a[k * columns + j] ?? 0);
        }
      }
      return [module, product];
    }),
  );
}

export type Dense = Map<string, Float64Array>;
export const combine = (terms: [number, Dense][]): Dense => {
  const modules = [...(terms[0]?.[1].keys() ?? [])];
  return new Map(
    modules.map((module) => {
      const size = terms[0]?.[1].get(module)?.length ?? 0;
      const total = new Float64Array(size);
      for (const [factor, dense] of terms)
        dense.get(module)?.forEach((value, i) => {
          total[i] = (total[i] ?? 0) + factor * value;
        });
      return [module, total];
    }),
  );
};
export const norm = (values: Float64Array | undefined): number => Math.hypot(...(values ?? [Number.NaN]));
/** Over all matrices. */
export const size = (a: Dense): number => Math.hypot(...[...a.values()].map(norm));
export const inner = (a: Dense, b: Dense): number =>
  [...a].reduce((sum, [module, values]) => {
    const others = b.get(module);
    return sum + values.reduce((s, value, i) => s + value * (others?.[i] ?? Number.NaN), 0);
  }, 0);
export const distance = (a: Dense, b: Dense): number => {
  const difference = combine([
    [1, a],
    [-1, b],
  ]);
  const whole = Math.hypot(...[...a.values()].map(norm));
  return Math.hypot(...[...difference.values()].map(norm)) / whole;
};
