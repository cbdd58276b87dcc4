import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { carried, fixedPoint, type Reach, replaced } from './shrinkage.ts';

const share = fc.double({ min: 0.02, max: 0.98, noNaN: true });
const reaches = fc.record({ p: share, progress: share, target: fc.double({ min: 0.1, max: 10, noNaN: true }) });

const after = (rounds: number, step: (sigma: number, reach: Reach) => number, reach: Reach): number =>
  Array.from({ length: rounds }).reduce<number>((sigma) => step(sigma, reach), 0);

describe('the law of singular values', () => {
  it('flexlora comes to rest at the fixed point, below the target; carry at the target', () => {
    fc.assert(
      fc.property(reaches, (reach) => {
        const rest = fixedPoint(reach);
        expect(Math.abs(replaced(rest, reach) - rest)).toBeLessThan(1e-12 * reach.target);
        expect(rest).toBeLessThan(reach.target);
        expect(Math.abs(after(2000, replaced, reach) / rest - 1)).toBeLessThan(1e-9);
        expect(carried(reach.target, reach)).toBe(reach.target);
        expect(after(100, carried, reach)).toBeGreaterThanOrEqual(after(100, replaced, reach));
      }),
    );
  });

  it('without training flexlora keeps the share p of a round, and carry all', () => {
    const still = { p: 0.2, progress: 0, target: 5 };
    expect(replaced(3, still)).toBeCloseTo(0.6, 12);
    expect(carried(3, still)).toBe(3);
    expect(fixedPoint(still)).toBe(0);
  });

  it('is the same for both where every client reaches the direction', () => {
    const all = { p: 1, progress: 0.3, target: 2 };
    expect(replaced(0.5, all)).toBeCloseTo(carried(0.5, all), 12);
    expect(fixedPoint(all)).toBeCloseTo(2, 12);
  });
});
