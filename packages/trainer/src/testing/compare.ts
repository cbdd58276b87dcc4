// How far gradients are from the reference's, the way they are judged everywhere: by tensor, and all tensors as one vector.
import type { FactorGradients } from '../reference/index.ts';

export interface GradientErrors {
  /** ‖ours − theirs‖ / ‖theirs‖ by tensor, named `MODULE A` or `MODULE B`. */
  readonly tensors: readonly { readonly name: string; readonly error: number }[];
  /** The same over all tensors together. */
  readonly overall: number;
}

interface Factors {
  readonly a: ArrayLike<number>;
  readonly b: ArrayLike<number>;
}

const squares = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((sum, value) => sum + value * value, 0);

/**
 * Errors of these factors of every module. Throws Error when the modules or the lengths differ. NaN in `ours` is an error of
 * NaN, within no bound.
 */
export function gradientErrors(
  ours: ReadonlyMap<string, Factors>,
  theirs: ReadonlyMap<string, FactorGradients>,
  factors: readonly ('a' | 'b')[] = ['a', 'b'],
): GradientErrors {
  const stray = [...ours.keys()].find((module) => !theirs.has(module));
  if (stray !== undefined) throw new Error(`There is a gradient for ${stray}, which is not adapted.`);
  let errors = 0;
  let sizes = 0;
  const tensors = [...theirs].flatMap(([module, expected]) =>
    factors.map((factor) => {
      const name = `${module} ${factor.toUpperCase()}`;
      const [found, wanted] = [ours.get(module)?.[factor], expected[factor]];
      if (found?.length !== wanted.length)
        throw new Error(`${name} has ${found?.length ?? 'no'} elements where ${wanted.length} are expected.`);
      const error = squares(wanted.map((value, i) => value - (found[i] ?? Number.NaN)));
      const size = squares(wanted);
      errors += error;
      sizes += size;
      return { name, error: Math.sqrt(error / size) };
    }),
  );
  return { tensors, overall: Math.sqrt(errors / sizes) };
}

/** The tensor with the greatest error; NaN is greater than any. */
export const worstOf = ({ tensors }: GradientErrors): { readonly name: string; readonly error: number } =>
  tensors.reduce((worst, one) => (Number.isNaN(one.error) || one.error > worst.error ? one : worst), {
    name: 'none',
    error: 0,
  });
