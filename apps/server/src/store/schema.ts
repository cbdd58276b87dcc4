// Tables of the history index as queries see them; migrations/ makes them, and a test compares the two. Everything in them
// can be made again from the files of the runs.
import { bigint, doublePrecision, index, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';

export const runs = pgTable('runs', {
  runId: text('run_id').primaryKey(),
  name: text('name').notNull(),
  strategy: text('strategy').notNull(),
  createdAt: text('created_at').notNull(),
  runHash: text('run_hash').notNull(),
});

export const rounds = pgTable(
  'rounds',
  {
    runId: text('run_id').notNull(),
    round: integer('round').notNull(),
    version: integer('version').notNull(),
    outcome: text('outcome').notNull(),
    reason: text('reason'),
    endedAt: text('ended_at').notNull(),
    mergeMs: doublePrecision('merge_ms').notNull(),
    trainLoss: doublePrecision('train_loss'),
    heldOutLoss: jsonb('held_out_loss'),
    /** Of what the round's rows were made from; null in rows of earlier versions. */
    digest: text('digest'),
  },
  (table) => [primaryKey({ columns: [table.runId, table.round] })],
);

export const contributions = pgTable(
  'contributions',
  {
    runId: text('run_id').notNull(),
    round: integer('round').notNull(),
    clientId: text('client_id').notNull(),
    name: text('name'),
    rank: integer('rank').notNull(),
    task: text('task'),
    targetTokens: bigint('target_tokens', { mode: 'number' }).notNull(),
    examples: bigint('examples', { mode: 'number' }).notNull(),
    uploadBytes: bigint('upload_bytes', { mode: 'number' }).notNull(),
    weight: doublePrecision('weight').notNull(),
    quarantined: text('quarantined'),
  },
  (table) => [primaryKey({ columns: [table.runId, table.round, table.clientId] })],
);

export const receipts = pgTable(
  'receipts',
  {
    receiptId: text('receipt_id').primaryKey(),
    runId: text('run_id').notNull(),
    round: integer('round').notNull(),
    clientId: text('client_id').notNull(),
    leaseId: text('lease_id').notNull(),
    sha256: text('sha256').notNull(),
    bytes: bigint('bytes', { mode: 'number' }).notNull(),
    targetTokens: bigint('target_tokens', { mode: 'number' }).notNull(),
    acceptedAt: text('accepted_at').notNull(),
  },
  (table) => [index('receipts_run_round').on(table.runId, table.round)],
);
