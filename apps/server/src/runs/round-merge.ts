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
import { type Counts, countLeases, leasesOfMerge, minimumFor, plural } from '../coordinator/derive.ts';
import type { LateEntry, LeaseEntry, MachineState, Quarantine } from '../coordinator/types.ts';
import type { UploadFiles } from '../merge/merger.ts';
import { quarantine, quarantineOpposed } from '../merge/quarantine.ts';
import { buildTree } from '../receipts/round-tree.ts';
import { uploadFault } from '../store/check.ts';
import type { RoundFile, UploadRecord } from '../store/run-store.ts';
import { sparseStage, stateRankOf } from './grants.ts';
import {
  contributionOf,
  creditedLate,
  creditOf,
  mergedLate,
  stalenessWeight,
  tooLate,
  waitsForOthers,
  whyOnlyCredited,
} from './late-work.ts';
import type { RunContext } from './run-context.ts';

export type MergeOutcome =
  | { readonly ok: true; readonly file: RoundFile }
  | {
      readonly ok: false;
      readonly reason: string;
      readonly quarantined: readonly Quarantine[];
      /** Late work that was in the merge. */
      readonly late: readonly string[];
    };

/** `round`: of whose leases. `global`: hash of the state the merge adds to; null for version 0. */
export async function mergeRound(
  context: RunContext,
  state: MachineState,
  round: number,
  global: string | null,
): Promise<MergeOutcome> {
  const { definition, matrices, merger, uploads, globals, now, monotonic, signer } = context;
  const { settings } = definition;
  const startedAt = monotonic();
  const { onTime, late, credited, stale } = uploadsOf(context, state, round);
  const lost = [...onTime, ...late].flatMap((upload) => {
    const reason = uploadFault(uploads, upload.record);
    return reason === null ? [] : [{ ...upload, reason }];
  });
  const gone = new Set(lost.map(({ leaseId }) => leaseId));
  const sent = await measured(
    context,
    [...onTime, ...late].filter(({ leaseId }) => !gone.has(leaseId)),
  );
  const quarantined = [
    ...lost.map(({ leaseId, reason }) => ({ leaseId, reason })),
    ...(await checkTogether(context, sent)),
  ];
  const bad = new Map(quarantined.map(({ leaseId, reason }) => [leaseId, reason]));
  const isBad = ({ leaseId }: Sent) => bad.has(leaseId);
  const good = sent.filter((each) => !isBad(each));
  const inTime = good.filter(({ entry }) => entry === null);
  const kept = new Set(inTime.map(({ leaseId }) => leaseId));
  const minimum = minimumFor(
    state.policy,
    leasesOfMerge(state, round).filter(({ leaseId }) => kept.has(leaseId)),
  );
  if (inTime.length < minimum) {
    const reason = `Only ${plural(inTime.length, 'upload')} of the ${minimum} needed passed the checks.`;
    return { ok: false, reason, quarantined, late: late.map(({ leaseId }) => leaseId) };
  }
  const waiting = waitsForOthers(
    state.policy,
    new Set(inTime.map(({ record }) => record.receipt.clientId)),
    good.flatMap(({ entry }) => entry ?? []),
  );
  const accepted = good.filter(({ leaseId }) => !waiting.has(leaseId));
  const weights = normaliseWeights(
    accepted.map(({ record: { begin, startVersion } }) =>
      stalenessWeight(begin.targetTokens, state.version - startVersion, settings.stalenessPower),
    ),
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
  const settledLate = late.filter(({ leaseId }) => !waiting.has(leaseId));
  const tree = await buildTree(
    signer,
    { runId: definition.runId, round, version: state.version + 1, signedAt: endedAt },
    [
      ...[...onTime, ...settledLate].map(({ record, leaseId }) => ({ record, reason: bad.get(leaseId) ?? null })),
      ...stale,
      ...credited.map(({ record, late: reason }) => ({ record, reason })),
    ].map(({ record: { receipt }, reason }) => ({ receipt, outcome: { merged: reason === null, reason } })),
  );
  const figures = figuresOf([...accepted, ...watched], weights, clips, merged.agreement);
  const contributions = [
    ...figures.map(({ sent: { record, leaseId, entry }, ...figure }) =>
      contributionOf(record, {
        ...figure,
        quarantined: bad.get(leaseId) ?? null,
        late: entry && (bad.has(leaseId) ? tooLate(entry) : mergedLate(entry, round)),
      }),
    ),
    ...lost.map(({ record, entry, reason }) => ({
      ...creditOf(record, ''),
      late: entry && tooLate(entry),
      quarantined: reason,
    })),
    ...stale.map(({ record, reason }) => ({ ...creditOf(record, ''), late: null, quarantined: reason })),
    ...credited.map(({ record, late: words }) => creditOf(record, words)),
  ];
  const counts = countLeases(leasesOfMerge(state, round));
  const file: RoundFile = {
    record: {
      round,
      version: state.version + 1,
      outcome: 'committed',
      reason: outcomeOfMerge(contributions, counts, state.merge?.round === round ? state.merge.reason : state.reason),
      endedAt,
      mergeMs: Math.round(monotonic() - startedAt),
      contributions,
      trainLoss: accepted.reduce((sum, { record }, i) => sum + (weights[i] ?? 0) * record.begin.lastLoss, 0),
      heldOutLoss: null,
      spectra: [...merged.spectra],
      tree: tree.head,
    },
    global: blob,
    leaves: tree.leaves,
    settled: {
      quarantined,
      late: [...settledLate, ...credited].map(({ leaseId }) => leaseId),
    },
  };
  return { ok: true, file };
}

/** An upload on disk. `entry`: the late work it is; null where it came in time. */
interface Upload {
  readonly leaseId: string;
  readonly record: UploadRecord;
  readonly entry: LateEntry | null;
}

/** A delivered upload and what it changed. */
interface Sent extends Upload {
  readonly files: UploadFiles;
  readonly norm: number;
  readonly ofA: boolean;
}

const byHash = (a: Upload, b: Upload): number =>
  compare(a.record.receipt.sha256, b.record.receipt.sha256) ||
  compare(a.record.receipt.clientId, b.record.receipt.clientId);

/** What there is to merge and to credit, each in the order in which it is summed. */
function uploadsOf({ store, definition }: RunContext, state: MachineState, round: number) {
  const { settings } = definition;
  const entries = state.late.filter(({ arrived }) => arrived);
  const leases = leasesOfMerge(state, round).filter((lease) => lease.state !== 'live' && lease.state !== 'dropped');
  const found = <T extends LeaseEntry>(list: readonly T[]) =>
    list.flatMap((lease) => {
      const record = store.readUpload(lease.round, lease.leaseId);
      return record?.withdrawn === null ? [{ lease, leaseId: lease.leaseId, record }] : [];
    });
  const late: Upload[] = [];
  const credited: { readonly leaseId: string; readonly record: UploadRecord; readonly late: string }[] = [];
  for (const { lease, leaseId, record } of found(entries)) {
    const why = whyOnlyCredited(lease, settings, state.version);
    if (why === null) late.push({ leaseId, record, entry: lease });
    else credited.push({ leaseId, record, late: creditedLate(lease, why) });
  }
  const here = found(leases);
  return {
    onTime: here
      .filter(({ lease }) => lease.state === 'uploaded')
      .map(({ leaseId, record }): Upload => ({ leaseId, record, entry: null }))
      .sort(byHash),
    late: late.sort(byHash),
    credited,
    /** Became too old while they waited for a merge. */
    stale: here.flatMap(({ lease, record }) =>
      lease.state === 'quarantined' ? [{ record, reason: lease.reason ?? 'stale' }] : [],
    ),
  };
}

async function measured(context: RunContext, uploads: readonly Upload[]): Promise<Sent[]> {
  const onDisk = uploads.map((upload) => ({ ...upload, files: filesOf(context, upload.record) }));
  const changes = await context.merger.changes(
    onDisk.map(({ files }) => files),
    context.matrices,
  );
  return onDisk.map((each, i) => ({ ...each, ...(changes[i] ?? { norm: Number.NaN, ofA: true }) })).sort(byHash);
}

/** How the round ended, in one line. `said`: what the operator had to do with it. */
function outcomeOfMerge(
  contributions: readonly Contribution[],
  { leased, dropped }: Counts,
  said: string | null,
): string {
  const of = (wanted: (each: Contribution) => boolean) => contributions.filter(wanted).length;
  const merged = of(({ quarantined, late, weight }) => quarantined === null && (late === null || weight > 0));
  const late = of((each) => each.late !== null && each.quarantined === null && each.weight > 0);
  const credited = of((each) => each.late !== null && each.quarantined === null && each.weight === 0);
  const bad = of(({ quarantined }) => quarantined !== null);
  const parts = [
    `Merged ${plural(merged, 'upload')}${late > 0 ? `, ${late} of them late` : ''}`,
    ...(bad > 0 ? [`${bad} quarantined`] : []),
    ...(credited > 0 ? [`${credited} late and only credited`] : []),
    ...(dropped > 0 ? [`${dropped} of ${plural(leased, 'lease')} dropped`] : []),
  ];
  return `${parts.join('; ')}.${said ? ` ${said}` : ''}`;
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

/** What the record tells of each change: the accepted first, then the quarantined, which had no part in the mean. */
function figuresOf(
  compared: readonly Sent[],
  weights: readonly number[],
  clips: readonly number[],
  agreement: Agreement,
): (Figures & { readonly sent: Sent })[] {
  const merged = weights.length;
  const coefficients = compared.map((_, i) => (weights[i] ?? 0) * (clips[i] ?? 1));
  const toMean = cosinesWithSum(agreement);
  const toOthers = cosinesWithOthers(agreement, coefficients);
  const outliers = findOutliers(
    compared.slice(0, merged).map(({ norm }, i) => ({ norm, cosine: toOthers[i] ?? null })),
  );
  return compared.map((sent, i) => ({
    sent,
    weight: weights[i] ?? 0,
    changeNorm: sent.norm,
    cosineToMean: toMean[i] ?? null,
    clip: clips[i] ?? 1,
    outlier: outliers[i] ?? null,
  }));
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function filesOf(context: RunContext, { receipt, begin, grant, sent, startVersion }: UploadRecord) {
  const { uploads, blobs, definition } = context;
  const sparse = sparseStage(definition.settings, startVersion);
  // That these were the lease's was seen before the receipt.
  if (!blobs.has(begin.startHash)) {
    throw new RangeError(`The start weights ${begin.startHash} of lease ${receipt.leaseId} are not on disk.`);
  }
  const paths = { path: uploads.path(receipt.sha256), startPath: blobs.path(begin.startHash) };
  return { ...paths, grant: sent, startGrant: grant, sparse };
}
