import { describe, expect, it } from 'vitest';
import { ago, bytes, countdown, duration, loss, quantity, significant, tokenSpeed } from './format.ts';

describe('figures', () => {
  it.each([
    [1, '1 byte'],
    [840, '840 bytes'],
    [1_000, '1.0 kB'],
    [55_900, '55.9 kB'],
    [193_712, '194 kB'],
    [999_600, '1.0 MB'],
    [4_914_000, '4.9 MB'],
    [9_960_000, '10.0 MB'],
    [99_960_000, '100 MB'],
    [209_800_000, '210 MB'],
    [1_360_000_000, '1.4 GB'],
  ])('writes %d bytes as %s', (value, text) => expect(bytes(value)).toBe(text));

  it.each([
    [420, '0.4 s'],
    [9_960, '10 s'],
    [12_000, '12 s'],
    [59_700, '1 min'],
    [80_000, '1 min 20 s'],
    [3_599_700, '1 h'],
    [7_500_000, '2 h 5 min'],
  ])('writes %d ms as %s', (value, text) => expect(duration(value)).toBe(text));

  it.each([
    [0, '0:00'],
    [47_100, '0:48'],
    [725_000, '12:05'],
    [3_725_000, '1:02:05'],
  ])('counts %d ms down as %s', (value, text) => expect(countdown(value)).toBe(text));

  it('gives every loss three decimals and every speed its unit', () => {
    expect(loss(2.8741)).toBe('2.874');
    expect(loss(null)).toBe('–');
    expect(tokenSpeed(1830.4)).toBe('1,830 tokens/s');
  });

  it('says how long ago', () => {
    expect([0, 12_000, 180_000, 7_200_000].map(ago)).toEqual(['now', '12 s ago', '3 min ago', '2 h ago']);
  });

  it('keeps small and large figures readable', () => {
    expect([0, 0.123456, 0.00012345, 123456, 1e-4, 1.2e-7].map(significant)).toEqual([
      '0',
      '0.123',
      '1.23e-4',
      '1.23e+5',
      '1e-4',
      '1.2e-7',
    ]);
  });

  it('counts nouns', () => {
    expect([quantity(1, 'round'), quantity(2, 'round'), quantity(2, 'piece of work', 'pieces of work')]).toEqual([
      '1 round',
      '2 rounds',
      '2 pieces of work',
    ]);
  });
});
