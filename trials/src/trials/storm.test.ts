import { describe, expect, it } from 'vitest';
import { storm } from './storm.ts';

describe('a server killed under its volunteers', () => {
  it('has all of them back in their round, which is committed', async () => {
    const result = await storm({ volunteers: 60, ramp: 1, within: 60, think: 8 }, () => undefined);
    const failed = result.figures.filter(({ ok }) => !ok);
    expect(failed).toEqual([]);
    expect(result.figures.map(({ name }) => name)).toEqual([
      'volunteers there before',
      'volunteers back',
      'all back after',
      'leases lost',
      'rounds lost',
    ]);
  }, 300_000);
});
