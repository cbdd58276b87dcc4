// Rows of the index from files of the runs: one receipt, one round, or whatever a run's index lacks. Everything may be
// written twice.
import { createHash } from 'node:crypto';
import type { Contribution, RoundRecord } from '@weft/protocol';
import { and, count, desc, eq, max, sql, sum } from 'drizzle-orm';
import { atomically, type Connection, type Database } from './connection.ts';
import type { IndexedReceipt, IndexedRun } from './history.ts';
import { contributions, receipts, rounds, runs } from './schema.ts';

/** An opened index. */
export interface OpenIndex {
  readonly connection: Connection;
  readonly database: Database;
}

/** A statement takes 65,535 parameters at most. */
const ROWS_AT_ONCE = 2_000;
/** Sidecars read before sockets have their turn: a few milliseconds. */
const SIDECARS_AT_ONCE = 16;

/** PostgreSQL has no text with a zero byte; a client may have such a name. */
const plain = (text: string): string => text.replaceAll('\0', '');

const chunked = <T>(rows: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(rows.length / ROWS_AT_ONCE) }, (_, i) =>
    rows.slice(i * ROWS_AT_ONCE, (i + 1) * ROWS_AT_ONCE),
  );

export async function writeRun({ database }: OpenIndex, definition: IndexedRun['definition']): Promise<void> {
  const { runId, createdAt, runHash, settings } = definition;
  const row = { runId, createdAt, runHash, name: plain(settings.name), strategy: settings.strategy };
  await database.insert(runs).values(row).onConflictDoUpdate({ target: runs.runId, set: row });
}

export async function writeReceipts({ database }: OpenIndex, rows: readonly IndexedReceipt[]): Promise<void> {
  for (const some of chunked(rows)) {
    await database
      .insert(receipts)
      .values(
        some.map(({ receiptId, runId, round, clientId, leaseId, sha256, bytes, targetTokens, acceptedAt }) => ({
          receiptId,
          runId,
          round,
          clientId,
          leaseId,
          sha256,
          bytes,
          targetTokens,
          acceptedAt,
        })),
      )
      .onConflictDoNothing();
  }
}

/** Late work may give a client a second contribution to a round; in the index it is one row. */
function oneForEach(all: readonly Contribution[]) {
  const rows = new Map<string, Omit<typeof contributions.$inferInsert, 'runId' | 'round'>>();
  for (const { clientId, name, rank, task, targetTokens, examples, uploadBytes, weight, quarantined } of all) {
    const before = rows.get(clientId);
    const reason = before?.quarantined ?? quarantined;
    rows.set(clientId, {
      clientId,
      name: name === null ? null : plain(name),
      rank: Math.max(rank, before?.rank ?? 0),
      task: before?.task ?? task,
      targetTokens: targetTokens + (before?.targetTokens ?? 0),
      examples: examples + (before?.examples ?? 0),
      uploadBytes: uploadBytes + (before?.uploadBytes ?? 0),
      weight: weight + (before?.weight ?? 0),
      quarantined: reason === null ? null : plain(reason),
    });
  }
  return [...rows.values()];
}

function rowsOf(runId: string, record: RoundRecord) {
  const { round, version, outcome, reason, endedAt, mergeMs, trainLoss, heldOutLoss } = record;
  const row = {
    runId,
    round,
    version,
    outcome,
    reason: reason === null ? null : plain(reason),
    endedAt,
    mergeMs,
    trainLoss,
    heldOutLoss,
  };
  const parts = oneForEach(record.contributions).map((part) => ({ runId, round, ...part }));
  const digest = createHash('sha256')
    .update(JSON.stringify([row, parts]))
    .digest('hex');
  return { row: { ...row, digest }, parts };
}

export async function writeRound(index: OpenIndex, runId: string, record: RoundRecord): Promise<void> {
  const { row, parts } = rowsOf(runId, record);
  const { connection, database } = index;
  await atomically(connection, async () => {
    await database
      .insert(rounds)
      .values(row)
      .onConflictDoUpdate({ target: [rounds.runId, rounds.round], set: row });
    await database
      .delete(contributions)
      .where(and(eq(contributions.runId, runId), eq(contributions.round, record.round)));
    for (const some of chunked(parts)) await database.insert(contributions).values(some).onConflictDoNothing();
  });
}

const digestOf = (leases: readonly string[]): string => createHash('md5').update(leases.join(',')).digest('hex');

/** Lets sockets and rounds have their turn. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Makes the receipts of a round what its sidecars say. */
export async function readReceipts(index: OpenIndex, run: IndexedRun, round: number): Promise<void> {
  const { runId } = run.definition;
  const standing: IndexedReceipt[] = [];
  for (const [i, leaseId] of run.store.uploadLeases(round).entries()) {
    const record = run.store.readUpload(round, leaseId);
    if (record?.withdrawn === null) standing.push(record.receipt);
    if (i % SIDECARS_AT_ONCE === SIDECARS_AT_ONCE - 1) await turn();
  }
  await atomically(index.connection, async () => {
    await index.database.delete(receipts).where(and(eq(receipts.runId, runId), eq(receipts.round, round)));
    await writeReceipts(index, standing);
  });
  await turn();
}

/**
 * Makes the rows of a run what its files say: rounds compared by digest, receipts by the leases of each round. What was
 * rewritten under the same name shows only in the rounds to `reread`.
 */
export async function compareRun(
  index: OpenIndex,
  run: IndexedRun,
  reread: ReadonlySet<number> | 'all',
): Promise<void> {
  const { database } = index;
  const { runId } = run.definition;
  await writeRun(index, run.definition);
  const kept = await database
    .select({ round: rounds.round, digest: rounds.digest })
    .from(rounds)
    .where(eq(rounds.runId, runId));
  const digests = new Map(kept.map(({ round, digest }) => [round, digest]));
  for (const record of run.records()) {
    if (digests.get(record.round) !== rowsOf(runId, record).row.digest) await writeRound(index, runId, record);
    digests.delete(record.round);
    await turn();
  }
  for (const round of digests.keys()) {
    await database.delete(rounds).where(and(eq(rounds.runId, runId), eq(rounds.round, round)));
    await database.delete(contributions).where(and(eq(contributions.runId, runId), eq(contributions.round, round)));
  }
  const leases = sql<string>`md5(string_agg(${receipts.leaseId}, ',' order by ${receipts.leaseId} collate "C"))`;
  const known = await database
    .select({ round: receipts.round, leases })
    .from(receipts)
    .where(eq(receipts.runId, runId))
    .groupBy(receipts.round);
  const inIndex = new Map(known.map(({ round, leases }) => [round, leases]));
  for (const round of new Set([...inIndex.keys(), ...run.store.uploadRounds()])) {
    const again = reread === 'all' || reread.has(round);
    await turn();
    if (!again && inIndex.get(round) === digestOf(run.store.uploadLeases(round))) continue;
    await readReceipts(index, run, round);
  }
}

/** Who has contributed to a run, most target tokens first. */
export async function readContributors({ database }: OpenIndex, runId: string) {
  const tokens = sum(contributions.targetTokens).mapWith(Number);
  const rows = await database
    .select({
      clientId: contributions.clientId,
      name: max(contributions.name),
      rounds: count(),
      targetTokens: tokens,
      uploadBytes: sum(contributions.uploadBytes).mapWith(Number),
      largestRank: max(contributions.rank),
      quarantined: sql<number>`count(${contributions.quarantined})`.mapWith(Number),
      lastRound: max(contributions.round),
    })
    .from(contributions)
    .where(eq(contributions.runId, runId))
    .groupBy(contributions.clientId)
    .orderBy(desc(tokens), sql`${contributions.clientId} collate "C"`);
  return rows.map((row) => ({ ...row, largestRank: row.largestRank ?? 0, lastRound: row.lastRound ?? 0 }));
}
