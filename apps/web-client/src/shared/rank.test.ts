import { describe, expect, it } from 'vitest';
import { rankHue } from './rank.tsx';

describe('the colour of a rank', () => {
  it('is a hue for any rank, the same each time, and differs between the ranks of a run', () => {
    const ranks = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    const hues = ranks.map(rankHue);
    for (const hue of [...hues, rankHue(200), rankHue(4096)]) {
      expect(hue).toBeGreaterThanOrEqual(0);
      expect(hue).toBeLessThan(360);
    }
    const distance = (a: number, b: number) => Math.min(Math.abs(a - b), 360 - Math.abs(a - b));
    for (const [i, a] of hues.entries()) for (const b of hues.slice(i + 1)) expect(distance(a, b)).toBeGreaterThan(20);
  });
});
