import { describe, expect, it } from 'vitest';
import { quarantine, quarantineOpposed, type Suspect } from './quarantine.ts';

const upload = (leaseId: string, changeNorm: number, rest: Partial<Suspect> = {}): Suspect => ({
  leaseId,
  sha256: leaseId,
  steps: 10,
  changeNorm,
  ...rest,
});

describe('quarantine', () => {
  it('leaves honest small cohorts alone, even very different ones', () => {
    expect(quarantine([upload('a', 1), upload('b', 4), upload('c', 9)])).toEqual([]);
    expect(quarantine([upload('a', 1), upload('b', 500)])).toEqual([]);
    expect(quarantine([upload('a', 0), upload('b', 0), upload('c', 3)])).toEqual([]);
  });

  it('takes out an update far larger than the others', () => {
    const found = quarantine([upload('a', 1), upload('b', 1.5), upload('c', 100), upload('d', 0.7)]);
    expect(found.map((bad) => bad.leaseId)).toEqual(['c']);
    expect(found[0]?.reason).toMatch(/^norm: /);
  });

  it('does not blame one who trained on for those who finished early', () => {
    expect(
      quarantine([upload('a', 0.1, { steps: 1 }), upload('b', 0.1, { steps: 1 }), upload('c', 2, { steps: 40 })]),
    ).toEqual([]);
  });

  it('takes out what changed a frozen factor, before it is compared with anything', () => {
    const found = quarantine([upload('a', 1), upload('b', 1, { changedFrozen: true }), upload('c', 1)]);
    expect(found).toEqual([{ leaseId: 'b', reason: expect.stringMatching(/^frozen: A was changed/) }]);
  });

  it('takes out copies, but not equal uploads of those who did nothing', () => {
    const copied = quarantine([upload('a', 1, { sha256: 'x' }), upload('b', 1, { sha256: 'x' }), upload('c', 1)]);
    expect(copied.map((bad) => bad.leaseId)).toEqual(['b']);
    expect(quarantine([upload('a', 0, { sha256: 'x' }), upload('b', 0, { sha256: 'x' }), upload('c', 1)])).toEqual([]);
  });
});

describe('quarantineOpposed', () => {
  const cohort = (...cosines: (number | null)[]) => cosines.map((cosine, i) => ({ leaseId: `lease-${i}`, cosine }));

  it('takes out who pulls the other way, with the figures', () => {
    expect(quarantineOpposed(cohort(0.5, 0.6, 0.55, 0.45, 0.02, -0.5), 0.75)).toEqual([
      {
        leaseId: 'lease-5',
        reason:
          'similarity: the update pulls against the others: cosine -0.500 with their mean direction, where those who agree have 0.500 and -0.375 is the limit',
      },
    ]);
  });

  it('keeps an honest minority, and everybody where there is no common direction', () => {
    expect(quarantineOpposed(cohort(0.5, 0.6, 0.55, 0.45, 0.02, -0.2), 0.75)).toEqual([]);
    expect(quarantineOpposed(cohort(0.05, -0.04, -0.01, 0.01, -0.06, null), 0.75)).toEqual([]);
    expect(quarantineOpposed(cohort(0.9, 0.9, 0.9, -0.9), 0.75)).toEqual([]);
  });
});
