// The merge of one round: second checks, weights, the merge itself, and the record of it all. Reads files and writes the
// next state's blob; the caller decides whether it still counts.
import {
  type Agreement,
  clipFactors,
  cosinesWithOthers,
  cosinesWithSum,
  findOutliers,
  LEAST_COHORT,
  normaliseWeights,
  strategyByName,
} from '@weft/flexlora';
import type { Contribution } from '@weft/protocol';
import { minimumFor, plural } from '../coordinator/derive.ts';
import type { MachineState, Quarantine } from '../coordinator/types.ts';
import type { UploadFiles } from '../merge/merger.ts';
import { quarantine, quarantineOpposed } from '../merge/quarantine.ts';
import { buildTree } from '../receipts/round-tree.ts';
import { uploadFault } from '../store/check.ts';
import type { RoundFile, UploadRecord } from '../store/run-store.ts';
import { sparseStage, startKey, stateRankOf } from './grants.ts';
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
  const { definition, matrices, merger, uploads, globals, now, monotonic, signer } = context;
  const { settings } = definition;
  const startedAt = monotonic();
  const delivered = records
    .filter(({ receipt }) =>
      state.leases.some((lease) => lease.leaseId === receipt.leaseId && lease.state === 'uploaded'),
    )
    .sort((a, b) => compare(a.receipt.sha256, b.receipt.sha256) || compare(a.receipt.clientId, b.receipt.clientId));
  const lost = delivered.flatMap((record) => {
    const reason = uploadFault(uploads, record);
    return reason === null ? [] : [{ record, reason }];
  });
  const onDisk = delivered
    .filter((record) => !lost.some((each) => each.record === record))
    .map((record) => ({ record, files: filesOf(context, record) }));
  const changes = await merger.changes(
    onDisk.map(({ files }) => files),
    matrices,
  );
  const sent = onDisk.map((each, i): Sent => ({ ...each, ...(changes[i] ?? { norm: Number.NaN, ofA: true }) }));
  const quarantined = [
    ...lost.map(({ record, reason }) => ({ leaseId: record.receipt.leaseId, reason })),
    ...(await checkTogether(context, sent)),
  ];
  const bad = new Map(quarantined.map(({ leaseId, reason }) => [leaseId, reason]));
  const isBad = ({ record: { receipt } }: Sent) => bad.has(receipt.leaseId);
  const accepted = sent.filter((each) => !isBad(each));
  const minimum = minimumFor(
    state.policy,
    state.leases.filter((lease) => accepted.some(({ record: { receipt } }) => receipt.leaseId === lease.leaseId)),
  );
  if (accepted.length < minimum) {
    const reason = `Only ${plural(accepted.length, 'upload')} of the ${minimum} needed passed the checks.`;
    return { ok: false, reason, quarantined };
  }
  const weights = normaliseWeights(
    accepted.map(({ record: { begin } }) => begin.targetTokens),
    { maxWeightShare: settings.maxWeightShare },
  );
  const clips =
    settings.maxChangeNorm > 0
      ? clipFactors(
          accepted.map(({ norm }) => norm),
          settings.maxChangeNorm,
        )
      : accepted.map(() => 1);
  const watched = sent.filter(isBad);
  const merged = await merger.merge({
    strategy: settings.strategy,
    momentum: settings.serverMomentum,
    global: global ? globals.path(global) : null,
    matrices,
    uploads: accepted.map((each, i) => ({ ...each.files, weight: weights[i] ?? 0, clip: clips[i] ?? 1 })),
    watched: watched.map((each) => each.files),
    sparse: sparseStage(settings, state.version),
    keepElements: sparseStage(settings, state.version + 1) !== null,
    stateRank: stateRankOf(settings),
    ranks: settings.ranks,
  });
  const blob = await globals.put(merged.state);
  const endedAt = now().toISOString();
  const tree = await buildTree(
    signer,
    { runId: definition.runId, round: state.round, version: state.version + 1, signedAt: endedAt },
    delivered.map(({ receipt }) => {
      const reason = bad.get(receipt.leaseId) ?? null;
      return { receipt, outcome: { merged: reason === null, reason } };
    }),
  );
  const figures = figuresOf([...accepted, ...watched], weights, clips, merged.agreement);
  const file: RoundFile = {
    record: {
      round: state.round,
      version: state.version + 1,
      outcome: 'committed',
      reason: null,
      endedAt,
      mergeMs: Math.round(monotonic() - startedAt),
      contributions: [
        ...figures.map(({ record, ...figure }) =>
          contributionOf(record, figure, bad.get(record.receipt.leaseId) ?? null),
        ),
        ...lost.map(({ record, reason }) => contributionOf(record, NO_FIGURES, reason)),
      ],
      trainLoss: accepted.reduce((sum, { record }, i) => sum + (weights[i] ?? 0) * record.begin.lastLoss, 0),
      heldOutLoss: null,
      spectra: [...merged.spectra],
      tree: tree.head,
    },
    global: blob,
    leaves: tree.leaves,
  };
  return { ok: true, file, quarantined };
}

/** A delivered upload and what it changed. */
interface Sent {
  readonly record: UploadRecord;
  readonly files: UploadFiles;
  readonly norm: number;
  readonly ofA: boolean;
}

/** Uploads that are not merged, and why: what only shows when a whole round's are there. */
async function checkTogether(
  { definition, matrices, merger, bans }: RunContext,
  sent: readonly Sent[],
): Promise<Quarantine[]> {
  const { strategy, rejectOpposed } = definition.settings;
  const frozenA = strategyByName(strategy).trains === 'B';
  const banned = sent.flatMap(({ record: { receipt } }): Quarantine[] => {
    const ban = bans.of(receipt.clientId);
    return ban ? [{ leaseId: receipt.leaseId, reason: `banned: ${ban.reason}` }] : [];
  });
  const welcome = sent.filter(({ record: { receipt } }) => !banned.some(({ leaseId }) => leaseId === receipt.leaseId));
  const suspect = quarantine(
    welcome.map(({ record: { receipt, begin }, norm, ofA }) => ({
      leaseId: receipt.leaseId,
      sha256: receipt.sha256,
      steps: begin.steps,
      changeNorm: norm,
      changedFrozen: frozenA && ofA,
    })),
  );
  const found = [...banned, ...suspect];
  const rest = sent.filter(({ record: { receipt } }) => !found.some(({ leaseId }) => leaseId === receipt.leaseId));
  if (rejectOpposed === 0 || rest.length < LEAST_COHORT) return found;
  // Every change at norm 1: nobody has more say in what the cohort agrees on for having moved further.
  const units = rest.map(({ norm }) => (norm > 0 ? 1 / norm : 0));
  const agreement = await merger.agreement(
    rest.map(({ files }, i) => ({ ...files, weight: units[i] ?? 0 })),
    matrices,
  );
  const cosines = cosinesWithOthers(agreement, units);
  const suspects = rest.map(({ record }, i) => ({ leaseId: record.receipt.leaseId, cosine: cosines[i] ?? null }));
  return [...found, ...quarantineOpposed(suspects, rejectOpposed)];
}

type Figures = Pick<Contribution, 'weight' | 'changeNorm' | 'cosineToMean' | 'clip' | 'outlier'>;

/** Of an upload whose bytes the server has lost. */
const NO_FIGURES: Figures = { weight: 0, changeNorm: null, cosineToMean: null, clip: 1, outlier: null };

/** What the record tells of each change: the accepted first, then the quarantined, which had no part in the mean. */
function figuresOf(
  compared: readonly Sent[],
  weights: readonly number[],
  clips: readonly number[],
  agreement: Agreement,
): (Figures & { readonly record: UploadRecord })[] {
  const merged = weights.length;
  const coefficients = compared.map((_, i) => (weights[i] ?? 0) * (clips[i] ?? 1));
  const toMean = cosinesWithSum(agreement);
  const toOthers = cosinesWithOthers(agreement, coefficients);
  const outliers = findOutliers(
    compared.slice(0, merged).map(({ norm }, i) => ({ norm, cosine: toOthers[i] ?? null })),
  );
  return compared.map(({ record, norm }, i) => ({
    record,
    weight: weights[i] ?? 0,
    changeNorm: norm,
    cosineToMean: toMean[i] ?? null,
    clip: clips[i] ?? 1,
    outlier: outliers[i] ?? null,
  }));
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function filesOf(context: RunContext, { receipt, begin, grant, sent, startVersion }: UploadRecord) {
  const { uploads, blobs, store, definition } = context;
  const sparse = sparseStage(definition.settings, startVersion);
  const start = store.readStart(startVersion, startKey(sparse, grant));
  if (start?.sha256 !== begin.startHash) {
    throw new RangeError(`The start weights ${begin.startHash} of lease ${receipt.leaseId} are not on disk.`);
  }
  const paths = { path: uploads.path(receipt.sha256), startPath: blobs.path(begin.startHash) };
  return { ...paths, grant: sent, startGrant: grant, sparse };
}

function contributionOf(
  { receipt, begin, name, rank, grant, task, startVersion }: UploadRecord,
  figures: Figures,
  quarantined: string | null,
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
    firstLoss: begin.firstLoss,
    lastLoss: begin.lastLoss,
    quarantined,
    ...figures,
  };
}
