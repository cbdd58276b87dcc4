// Tables of the history index. Everything in them can be made again from the files of the runs.
import { bigint, doublePrecision, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';

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

export const receipts = pgTable('receipts', {
  receiptId: text('receipt_id').primaryKey(),
  runId: text('run_id').notNull(),
  round: integer('round').notNull(),
  clientId: text('client_id').notNull(),
  leaseId: text('lease_id').notNull(),
  sha256: text('sha256').notNull(),
  bytes: bigint('bytes', { mode: 'number' }).notNull(),
  targetTokens: bigint('target_tokens', { mode: 'number' }).notNull(),
  acceptedAt: text('accepted_at').notNull(),
});

/** What a fresh database is given. Kept beside the tables above; the test of the index would miss a difference. */
export const CREATE_TABLES = [
  `create table if not exists runs (run_id text primary key, name text not null, strategy text not null,
     created_at text not null, run_hash text not null)`,
  `create table if not exists rounds (run_id text not null, round integer not null, version integer not null,
     outcome text not null, reason text, ended_at text not null, merge_ms double precision not null,
     train_loss double precision, held_out_loss jsonb, primary key (run_id, round))`,
  `create table if not exists contributions (run_id text not null, round integer not null, client_id text not null,
     name text, rank integer not null, task text, target_tokens bigint not null, examples bigint not null,
     upload_bytes bigint not null, weight double precision not null, quarantined text,
     primary key (run_id, round, client_id))`,
  `create table if not exists receipts (receipt_id text primary key, run_id text not null, round integer not null,
     client_id text not null, lease_id text not null, sha256 text not null, bytes bigint not null,
     target_tokens bigint not null, accepted_at text not null)`,
];
