// What people are told of a run, derived from its state: views, reasons, the closing sentence. Pure.
import { sideRank, strategyByName } from '@weft/flexlora';
import type { RoundRecord, RoundView, RunView } from '@weft/protocol';
import { countLeases, hasDelivered, minimumFor, plural } from '../coordinator/derive.ts';
import type { MachineState } from '../coordinator/types.ts';
import { stateRankOf } from './grants.ts';
import type { RunContext } from './run-context.ts';

export type LossByTask = Readonly<Record<string, number>>;

export function roundView(runId: string, state: MachineState, here: number): RoundView {
  const { training, uploaded, dropped, quarantined, leased } = countLeases(state.leases);
  const minimum = minimumFor(state.policy, state.leases);
  return {
    runId,
    round: Math.max(1, state.round),
    phase: state.phase,
    mergingRound: state.merge?.round ?? null,
    goal: state.policy.goal,
    minimum,
    here,
    leased,
    training,
    uploaded,
    dropped,
    quarantined,
    remainingMs: state.remainingMs === null ? null : Math.round(state.remainingMs),
    reason: [roundReason(state, minimum), state.reason].filter((words) => words !== null).join(' ') || null,
  };
}

/** Why the round waits; what its operator said of it stands beside that. */
function roundReason(state: MachineState, minimum: number): string | null {
  const counts = countLeases(state.leases);
  switch (state.phase) {
    case 'idle':
      return state.run === 'created' ? 'The run has not been started yet.' : null;
    case 'selecting': {
      const come = state.policy.deterministic ? state.wishes.length : counts.training + counts.uploaded;
      if (come === 0) return `Waiting for the first volunteer; ${minimum} are needed.`;
      return `Waiting for the round to open (${come} of ${plural(state.policy.goal, 'volunteer')} are here).`;
    }
    case 'training':
      return state.merge
        ? `Training: ${counts.uploaded} of ${plural(state.policy.goal, 'upload')} are in; round ${state.merge.round} is being merged.`
        : `Training: ${counts.uploaded} of ${plural(state.policy.goal, 'upload')} are in.`;
    case 'merging':
      return `Merging ${plural(counts.uploaded, 'upload')}.`;
    default:
      return null;
  }
}

/** Why one volunteer has no lease now. */
export function waitingReason(state: MachineState, clientId: string): string {
  if (state.run === 'created') return 'The run has not been started yet.';
  if (state.run === 'paused' && state.phase !== 'training') return 'The run is paused by its operator.';
  switch (state.phase) {
    case 'selecting':
      return state.policy.deterministic
        ? `Waiting for the round to open (${state.wishes.length} of ${plural(state.policy.goal, 'volunteer')} are here).`
        : `Round ${state.round} is full; the next place that opens is offered to those who wait.`;
    case 'training': {
      const { uploaded } = countLeases(state.leases);
      const missing = Math.max(1, state.policy.goal - uploaded);
      return hasDelivered(state, clientId)
        ? `Your update is in. Round ${state.round} waits for ${plural(missing, 'more upload')}.`
        : `Round ${state.round} is training; you are next when a place opens or the next round starts.`;
    }
    case 'merging':
      return `Round ${state.round} is being merged; the next one opens right after.`;
    default:
      return 'The next round opens in a moment.';
  }
}

/** Mean over tasks; null when nothing was measured. */
export function meanLoss(losses: LossByTask | null): number | null {
  const values = Object.values(losses ?? {});
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** One sentence at the end of a run; null while it goes on. */
export function outcomeOf(
  state: MachineState,
  rounds: readonly RoundRecord[],
  baseLoss: LossByTask | null,
): string | null {
  if (state.run !== 'completed' && state.run !== 'stopped') return null;
  const done = plural(state.version, 'round');
  const parts = [
    state.run === 'completed'
      ? `Committed ${done}`
      : `Stopped after ${plural(state.version, 'committed round')}${state.ending ? ` (${state.ending})` : ''}`,
  ];
  const latest = rounds.findLast((record) => record.outcome === 'committed' && record.heldOutLoss !== null);
  const before = meanLoss(baseLoss);
  const after = meanLoss(latest?.heldOutLoss ?? null);
  if (before !== null && after !== null) parts.push(`held-out loss ${before.toFixed(2)} → ${after.toFixed(2)}`);
  else if (after !== null) parts.push(`held-out loss ${after.toFixed(2)}`);
  const abandoned = rounds.filter((record) => record.outcome === 'abandoned').length;
  if (abandoned > 0) parts.push(`${plural(abandoned, 'round')} abandoned`);
  const bad = rounds.flatMap((record) => record.contributions.flatMap((c) => c.quarantined ?? []));
  if (bad.length > 0) {
    const kinds = [...new Set(bad.map((reason) => reason.split(':')[0] ?? reason))].join(', ');
    parts.push(`${plural(bad.length, 'upload')} quarantined (${kinds})`);
  }
  return `${parts.join('; ')}.`;
}

export function runView(
  { definition, manifest, signer }: Pick<RunContext, 'definition' | 'manifest' | 'signer'>,
  state: MachineState,
  outcome: string | null,
): RunView {
  const { side } = strategyByName(definition.settings.strategy);
  return {
    runId: definition.runId,
    createdAt: definition.createdAt,
    state: state.run,
    settings: definition.settings,
    model: manifest.model,
    manifestHash: definition.manifestHash,
    runHash: definition.runHash,
    identity: definition.identity,
    sideRanks: definition.settings.ranks.map((rank) => sideRank(side, stateRankOf(definition.settings), rank)),
    version: state.version,
    roundsCommitted: state.version,
    receiptKey: signer.key,
    outcome,
  };
}
