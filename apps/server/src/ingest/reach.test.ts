import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { reachOf } from './reach.ts';

const norm = (values: readonly number[]): number => Math.hypot(...values);

/** torch.optim.SGD on a tensor, with these gradients clipped to the norm; the distance from the start. */
function moved(
  start: readonly number[],
  gradients: readonly (readonly number[])[],
  {
    learningRate,
    momentum,
    weightDecay,
    maxGradNorm,
  }: Record<'learningRate' | 'momentum' | 'weightDecay' | 'maxGradNorm', number>,
): number {
  let [p, v] = [[...start], start.map(() => 0)];
  for (const gradient of gradients) {
    const clip = Math.min(1, maxGradNorm / (norm(gradient) + 1e-6));
    v = v.map((value, i) => momentum * value + clip * (gradient[i] ?? 0) + weightDecay * (p[i] ?? 0));
    p = p.map((value, i) => value - learningRate * (v[i] ?? 0));
  }
  return norm(p.map((value, i) => value - (start[i] ?? 0)));
}

const sgd = { optimiser: 'sgd', learningRate: 0.1, momentum: 0, weightDecay: 0, maxGradNorm: 2, steps: 5 } as const;

describe('how far SGD can have moved a tensor', () => {
  it('is never exceeded, whatever the gradients are', () => {
    const numbers = fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 3, maxLength: 3 });
    const part = (max: number) => fc.double({ min: 0, max, noNaN: true });
    fc.assert(
      fc.property(
        fc.array(numbers, { minLength: 1, maxLength: 12 }),
        numbers,
        fc.record({
          learningRate: part(2),
          momentum: part(0.99),
          weightDecay: part(1),
          maxGradNorm: part(10).map((x) => x + 1e-3),
        }),
        (gradients, start, hyper) => {
          const reach = reachOf({ ...sgd, ...hyper, steps: gradients.length });
          expect(moved(start, gradients, hyper)).toBeLessThanOrEqual(reach({ startNorm: norm(start), elements: 3 }));
        },
      ),
    );
  });

  it.each([
    { momentum: 0, weightDecay: 0 },
    { momentum: 0.9, weightDecay: 0 },
  ])('is reached but for rounding by gradients that always point one way: %j', (hyper) => {
    const gradients = Array.from({ length: sgd.steps }, () => [100, 0, 0]);
    const distance = moved([1, 2, 2], gradients, { ...sgd, ...hyper });
    const reach = reachOf({ ...sgd, ...hyper })({ startNorm: 3, elements: 3 });
    expect(reach / distance).toBeLessThan(1.02);
    if (hyper.momentum === 0) expect(distance).toBeCloseTo(0.1 * 5 * 2, 5);
  });

  it('does not grow with the size of a tensor, as AdamW’s does, which moves every element', () => {
    const [small, large] = [
      { startNorm: 1, elements: 16 },
      { startNorm: 1, elements: 1600 },
    ];
    expect(reachOf(sgd)(large)).toBe(reachOf(sgd)(small));
    const adamw = reachOf({ ...sgd, optimiser: 'adamw' });
    expect(adamw(large) / adamw(small)).toBeCloseTo(10, 12);
    expect(reachOf({ ...sgd, maxGradNorm: 0 })(small)).toBe(Number.POSITIVE_INFINITY);
  });
});
