// The merge of one round: second checks, weights, the merge itself, and the record of it all. Reads files and writes the
// next state's blob; the caller decides whether it still counts.
import { normaliseWeights, strategyByName } from '@weft/flexlora';
import type { Contribution } from '@weft/protocol';
import { minimumFor, plural } from '../coordinator/derive.ts';
import type { MachineState, Quarantine } from '../coordinator/types.ts';
import { quarantine } from '../merge/quarantine.ts';
import type { RoundFile, UploadRecord } from '../store/run-store.ts';
import { grantKey, stateRankOf } from './grants.ts';
import type { RunContext } from './run-context.ts';

export type MergeOutcome =
  | { readonly ok: true; readonly file: RoundFile; readonly quarantined: readonly Quarantine[] }
  | { readonly ok: false; readonly reason: string; readonly quarantined: readonly Quarantine[] };

/** `records`: sidecars of the round. `global`: hash of the state the round started from; null for version 0. */
export async function mergeRound(
  context: RunContext,
  state: MachineState,
  records: readonly UploadRecord[],
  global: string | null,
): Promise<MergeOutcome> {
  const { definition, matrices, merger, globals, now, monotonic } = context;
  const { settings } = definition;
  const startedAt = monotonic();
  const delivered = records
    .filter(({ receipt }) =>
      state.leases.some((lease) => lease.leaseId === receipt.leaseId && lease.state === 'uploaded'),
    )
    .sort((a, b) => compare(a.receipt.sha256, b.receipt.sha256) || compare(a.receipt.clientId, b.receipt.clientId));
  const files = delivered.map((record) => filesOf(context, record));
  const changes = await merger.changes(files, matrices);
  const frozenA = strategyByName(settings.strategy).trains === 'B';
  const quarantined = quarantine(
    delivered.map(({ receipt, begin }, i) => ({
      leaseId: receipt.leaseId,
      sha256: receipt.sha256,
      steps: begin.steps,
      changeNorm: changes[i]?.norm ?? 0,
      changedFrozen: frozenA && changes[i]?.ofA === true,
    })),
  );
  const bad = new Map(quarantined.map(({ leaseId, reason }) => [leaseId, reason]));
  const isGood = ({ receipt }: UploadRecord) => !bad.has(receipt.leaseId);
  const accepted = delivered.filter(isGood);
  const minimum = minimumFor(
    state.policy,
    state.leases.filter((lease) => accepted.some(({ receipt }) => receipt.leaseId === lease.leaseId)),
  );
  if (accepted.length < minimum) {
    const reason = `Only ${plural(accepted.length, 'upload')} of the ${minimum} needed passed the checks.`;
    return { ok: false, reason, quarantined };
  }
  const weights = normaliseWeights(
    accepted.map(({ begin }) => begin.targetTokens),
    { maxWeightShare: settings.maxWeightShare },
  );
  const { state: next, spectra } = await merger.merge({
    strategy: settings.strategy,
    momentum: settings.serverMomentum,
    global: global ? globals.path(global) : null,
    matrices,
    uploads: accepted.map((record, i) => ({ ...filesOf(context, record), weight: weights[i] ?? 0 })),
    stateRank: stateRankOf(settings),
  });
  const blob = await globals.put(next);
  const weightOf = (record: UploadRecord) => weights[accepted.indexOf(record)] ?? 0;
  const file: RoundFile = {
    record: {
      round: state.round,
      version: state.version + 1,
      outcome: 'committed',
      reason: null,
      endedAt: now().toISOString(),
      mergeMs: Math.round(monotonic() - startedAt),
      contributions: delivered.map((record) =>
        contributionOf(record, weightOf(record), bad.get(record.receipt.leaseId)),
      ),
      trainLoss: accepted.reduce((sum, record) => sum + weightOf(record) * record.begin.lastLoss, 0),
      heldOutLoss: null,
      spectra: [...spectra],
    },
    global: blob,
  };
  return { ok: true, file, quarantined };
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function filesOf({ uploads, blobs, store }: RunContext, { receipt, begin, grant, sent, startVersion }: UploadRecord) {
  const start = store.readStart(startVersion, grantKey(grant));
  if (start?.sha256 !== begin.startHash) {
    throw new RangeError(`The start weights ${begin.startHash} of lease ${receipt.leaseId} are not on disk.`);
  }
  return { path: uploads.path(receipt.sha256), startPath: blobs.path(begin.startHash), grant: sent, startGrant: grant };
}

function contributionOf(
  { receipt, begin, name, rank, grant, task, startVersion }: UploadRecord,
  weight: number,
  bad?: string,
): Contribution {
  return {
    clientId: receipt.clientId,
    name,
    rank,
    prunedFrom: rank === grant.rank ? null : grant.rank,
    task,
    targetTokens: begin.targetTokens,
    examples: begin.examples,
    uploadBytes: receipt.bytes,
    sha256: receipt.sha256,
    startVersion,
    weight,
    firstLoss: begin.firstLoss,
    lastLoss: begin.lastLoss,
    quarantined: bad ?? null,
  };
}
