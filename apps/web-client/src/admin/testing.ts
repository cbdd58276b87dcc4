// A run and a round as the server would tell of them, for the tests beside this file.
import { type RoundView, type RunSettingsInput, type RunState, type RunView, runSettingsSchema } from '@weft/protocol';

export function runOf(state: RunState, settings: Partial<RunSettingsInput> = {}): RunView {
  const all = { name: 'rooms', purpose: 'Learn.', operator: 'Ada', ranks: [4], tasks: ['rooms'], ...settings };
  return {
    runId: 'run',
    createdAt: '2026-01-01T00:00:00.000Z',
    state,
    settings: runSettingsSchema.parse(all),
    model: { name: 'small', licence: 'MIT', parameters: 260_000 },
    manifestHash: 'a'.repeat(64),
    runHash: 'b'.repeat(64),
    identity: {
      manifestHash: 'a'.repeat(64),
      baseDtype: 'f32',
      sequenceLength: 64,
      promptTemplate: '{prompt}',
      targets: ['q_proj'],
    },
    sideRanks: [0],
    version: 0,
    roundsCommitted: 0,
    receiptKey: { keyId: 'c'.repeat(24), publicKey: { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) } },
    outcome: null,
  };
}

export function roundOf(changes: Partial<RoundView> = {}): RoundView {
  return {
    runId: 'run',
    round: 1,
    phase: 'training',
    mergingRound: null,
    goal: 4,
    minimum: 3,
    here: 4,
    leased: 4,
    training: 4,
    uploaded: 0,
    dropped: 0,
    quarantined: 0,
    remainingMs: 60_000,
    reason: null,
    ...changes,
  };
}
