// The pure parts of a run: settings, grants, sentences, alerts.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loraTargets, parseModelConfig } from '@weft/formats';
import { type RoundRecord, runSettingsSchema } from '@weft/protocol';
import { describe, expect, it } from 'vitest';
import { initialState } from '../coordinator/machine.ts';
import { MODEL_DIR, SETTINGS } from '../testing/server.ts';
import { abandonedAlert, lossAlert } from './alerts.ts';
import { factorBytes, grantKey, makeGrant, scaleOf } from './grants.ts';
import { LeaseClock } from './lease-clock.ts';
import { policyOf } from './policy.ts';
import { outcomeOf } from './views.ts';

const settings = runSettingsSchema.parse(SETTINGS);
const timing = { selectionGraceMs: 5_000, restMs: 1_000 };

const record = (outcome: RoundRecord['outcome'], version: number, rest: Partial<RoundRecord> = {}): RoundRecord => ({
  round: version,
  version,
  outcome,
  reason: null,
  endedAt: '2026-01-01T00:00:00.000Z',
  mergeMs: 1,
  contributions: [],
  trainLoss: null,
  heldOutLoss: null,
  spectra: [],
  tree: null,
  ...rest,
});

describe('policyOf', () => {
  it('merges three at least, five with own files unless the run allows fewer', () => {
    expect(policyOf({ ...settings, minimum: 1 }, timing)).toMatchObject({ minimum: 3, ownFileMinimum: 5 });
    expect(policyOf({ ...settings, minimum: 4, smallOwnFileCohorts: true }, timing)).toMatchObject({
      minimum: 4,
      ownFileMinimum: 4,
    });
    expect(policyOf({ ...settings, minimum: 7 }, timing)).toMatchObject({ minimum: 7, ownFileMinimum: 7 });
  });
});

describe('makeGrant', () => {
  const matrices = loraTargets(parseModelConfig(readFileSync(join(MODEL_DIR, 'config.json'), 'utf8')));

  it('gives every matrix the rank, and small ones what they hold, all at one scale', () => {
    const grant = makeGrant(settings, matrices, 40);
    expect(grant).toMatchObject({ rank: 40, alpha: 80 });
    // Keys and values of this model are [32, 64].
    expect(Object.keys(grant.rankPattern)).toHaveLength(10);
    expect(grant.rankPattern['model.layers.0.self_attn.k_proj']).toBe(32);
    for (const { module } of matrices) expect(scaleOf(grant, module)).toBe(2);
    expect(makeGrant(settings, matrices, 32).rankPattern).toEqual({});
  });

  it('has a key and a size that follow from it', () => {
    const grant = makeGrant(settings, matrices, 4);
    expect(grantKey(grant)).toBe(grantKey(makeGrant(settings, matrices, 4)));
    expect(grantKey(grant)).not.toBe(grantKey(makeGrant(settings, matrices, 2)));
    expect(factorBytes(grant, matrices)).toBe(4 * factorBytes(makeGrant(settings, matrices, 1), matrices));
  });
});

describe('LeaseClock', () => {
  it('counts only time that passes, and keeps a lease at its latest length', () => {
    const clock = new LeaseClock();
    clock.start('a', 100);
    clock.start('b', 100);
    clock.renew('b', 1_000);
    expect(clock.elapse(99)).toEqual([]);
    clock.renew('a');
    expect(clock.elapse(99)).toEqual([]);
    expect(clock.elapse(1)).toEqual([{ leaseId: 'a', silentMs: 100 }]);
    expect(clock.elapse(10)).toEqual([]);
    expect(clock.elapse(800)).toEqual([{ leaseId: 'b', silentMs: 1_000 }]);
  });
});

describe('outcomeOf', () => {
  const state = { ...initialState(policyOf(settings, timing)), run: 'completed' as const, version: 3 };

  it('is one sentence', () => {
    const quarantined = { quarantined: 'norm: the update is large' } as RoundRecord['contributions'][number];
    const records = [
      record('committed', 1, { contributions: [quarantined] }),
      record('committed', 2),
      record('committed', 3, { heldOutLoss: { a: 2, b: 3.74 } }),
    ];
    expect(outcomeOf(state, records, { a: 5, b: 6.82 })).toBe(
      'Committed 3 rounds; held-out loss 5.91 → 2.87; 1 upload quarantined (norm).',
    );
    expect(outcomeOf({ ...state, run: 'running' }, records, null)).toBeNull();
    expect(outcomeOf({ ...state, run: 'stopped', version: 1 }, [], null)).toBe('Stopped after 1 committed round.');
  });
});

describe('alerts', () => {
  it('count abandoned rounds in a row', () => {
    const abandoned = record('abandoned', 0);
    expect(abandonedAlert([abandoned, abandoned])).toBeNull();
    expect(abandonedAlert([abandoned, abandoned, abandoned])).toContain('3 rounds in a row');
    expect(abandonedAlert([abandoned, abandoned, record('committed', 1), abandoned])).toBeNull();
  });

  it('see a loss that rises', () => {
    const records = [
      record('committed', 1, { heldOutLoss: { a: 3 } }),
      record('committed', 2, { heldOutLoss: { a: 3.5 } }),
    ];
    expect(lossAlert(1, records, { a: 5 })).toBeNull();
    expect(lossAlert(2, records, { a: 5 })).toContain('3.000 to 3.500');
    expect(lossAlert(1, records, null)).toBeNull();
  });
});
