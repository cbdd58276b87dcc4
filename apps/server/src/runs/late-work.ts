// What a merge makes of work that missed its round: whether it is merged or only credited, how much it weighs, and how the
// record puts it. Pure; when it is still taken is the round machine's.
import { strategyByName } from '@weft/flexlora';
import type { Contribution, RunSettings } from '@weft/protocol';
import { plural } from '../coordinator/derive.ts';
import type { LateEntry, Policy } from '../coordinator/types.ts';
import type { UploadRecord } from '../store/run-store.ts';
import { sparseStage } from './grants.ts';

/** n·(1 + τ)^−a (FedBuff, arXiv 2106.06639): `tokens` of work that started `staleness` versions ago. */
export const stalenessWeight = (tokens: number, staleness: number, power: number): number =>
  tokens * (1 + staleness) ** -power;

/** Why a merge into version `version` + 1 only credits this; null where it merges it. */
export function whyOnlyCredited(
  { tried, version: from }: Pick<LateEntry, 'tried' | 'version'>,
  settings: RunSettings,
  version: number,
): string | null {
  const staleness = version - from;
  if (tried) return 'the merge it was in failed';
  if (staleness === 0) return null;
  if (strategyByName(settings.strategy).synchronousOnly)
    return `${settings.strategy} merges no work that started from an older version`;
  if (sparseStage(settings, from) !== null || sparseStage(settings, version) !== null)
    return 'sparse updates are merged with those of their own round alone';
  if (staleness > settings.maxStaleness)
    return `it started ${plural(staleness, 'version')} ago, and this run takes at most ${settings.maxStaleness}`;
  return null;
}

/**
 * Late work on own files is merged only where enough others are in the merge; which of it has to wait. `clients`: who is in
 * the merge without it.
 */
export function waitsForOthers(
  policy: Policy,
  clients: ReadonlySet<string>,
  late: readonly LateEntry[],
): ReadonlySet<string> {
  const all = new Set([...clients, ...late.map(({ clientId }) => clientId)]);
  const own = late.filter((entry) => entry.own);
  if (own.length === 0 || all.size >= policy.ownFileMinimum) return new Set();
  return new Set(own.map(({ leaseId }) => leaseId));
}

const whatHappened = ({ round, reason }: LateEntry): string =>
  reason === null ? `Round ${round} came to nothing` : `Too late for round ${round}`;

export const tooLate = (entry: LateEntry): string => `${whatHappened(entry)}.`;

export const mergedLate = (entry: LateEntry, round: number): string =>
  `${whatHappened(entry)}; merged with round ${round}.`;

export const creditedLate = (entry: LateEntry, why: string): string =>
  `${whatHappened(entry)}; credited, but not merged: ${why}.`;

/** What a record tells of an upload besides what the merge found out about it. */
export function contributionOf(
  { receipt, begin, name, rank, grant, task, startVersion }: UploadRecord,
  merged: Pick<Contribution, 'weight' | 'changeNorm' | 'cosineToMean' | 'clip' | 'outlier' | 'quarantined' | 'late'>,
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
    ...merged,
  };
}

/** Work that counts for its volunteer and has no part in a merge. */
export const creditOf = (record: UploadRecord, late: string): Contribution =>
  contributionOf(record, {
    weight: 0,
    changeNorm: null,
    cosineToMean: null,
    clip: 1,
    outlier: null,
    quarantined: null,
    late,
  });
