// The index of past work: an embedded PostgreSQL behind Drizzle, written behind the files and made again from them when it
// is missing, behind or damaged. No round ever waits for it.
import { rmSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Contribution, Contributor, RoundRecord } from '@weft/protocol';
import { and, count, desc, eq, inArray, max, sql, sum } from 'drizzle-orm';
import { drizzle, type PgRemoteDatabase } from 'drizzle-orm/pg-proxy';
import type { Logger } from 'pino';
import { messageOf, ServerError } from '../errors.ts';
import { workerPath } from '../worker-path.ts';
import type { HistoryIndex } from './history.ts';
import type { RunDefinition, RunStore, UploadRecord } from './run-store.ts';
import { CREATE_TABLES, contributions, receipts, rounds, runs } from './schema.ts';

export type DatabaseQuestion =
  | { readonly id: number; readonly kind: 'query'; readonly sql: string; readonly params: unknown[] }
  | { readonly id: number; readonly kind: 'close' };
export type DatabaseAnswer =
  | { readonly id: number; readonly rows: unknown[] }
  | { readonly id: number; readonly error: string };

/** The worker thread, asked by messages. */
class Connection {
  readonly #worker: Worker;
  readonly #open = new Map<number, { resolve: (rows: unknown[]) => void; reject: (error: Error) => void }>();
  #next = 0;

  constructor(folder: string) {
    this.#worker = new Worker(workerPath('database-worker'), {
      workerData: { folder },
      // Flags of this process, such as --input-type, are not the thread's.
      execArgv: [],
    });
    this.#worker.on('message', (answer: DatabaseAnswer) => {
      const asked = this.#open.get(answer.id);
      this.#open.delete(answer.id);
      if ('rows' in answer) asked?.resolve(answer.rows);
      else asked?.reject(new ServerError('database', `The history index failed: ${answer.error}`));
    });
    this.#worker.on('error', (cause) =>
      this.#fail(new ServerError('database', `The history index failed: ${messageOf(cause)}`, { cause })),
    );
    this.#worker.on('exit', () => this.#fail(new ServerError('database', 'The history index has ended.')));
  }

  #fail(error: Error): void {
    for (const { reject } of this.#open.values()) reject(error);
    this.#open.clear();
  }

  #ask(question: DatabaseQuestion): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      this.#open.set(question.id, { resolve, reject });
      this.#worker.postMessage(question);
    });
  }

  query(text: string, params: unknown[]): Promise<unknown[]> {
    return this.#ask({ id: this.#next++, kind: 'query', sql: text, params });
  }

  async close(): Promise<void> {
    await this.#ask({ id: this.#next++, kind: 'close' });
    await this.end();
  }

  /** Ends the thread whatever it does. */
  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

type Database = PgRemoteDatabase<Record<string, never>>;

/** Work that waits this long opens the database. Making a new one keeps a core busy for seconds, and rounds come first. */
const OPEN_AFTER_MS = 10_000;

type Work = (database: Database) => Promise<unknown>;

export class History implements HistoryIndex {
  readonly #folder: string;
  readonly #logger: Logger;
  #connection: Connection | null = null;
  #database: Promise<Database | null> | null = null;
  #opened = false;
  #closed = false;
  #timer: NodeJS.Timeout | null = null;
  /** Everything not yet written, oldest first. */
  readonly #waiting: Work[] = [];
  #writing: Promise<void> | null = null;

  constructor(folder: string, logger: Logger) {
    this.#folder = folder;
    this.#logger = logger;
  }

  #open(): Promise<Database | null> {
    this.#database ??= this.#tryOpen(true);
    return this.#database;
  }

  /** Opens the database, or starts an empty one where the old one cannot be opened: it is only an index. */
  async #tryOpen(again: boolean): Promise<Database | null> {
    const connection = new Connection(this.#folder);
    this.#connection = connection;
    try {
      for (const statement of CREATE_TABLES) await connection.query(statement, []);
      this.#opened = true;
      return drizzle(async (text, params) => ({ rows: await connection.query(text, params) }));
    } catch (error) {
      await connection.end();
      if (this.#closed) return null;
      this.#logger.warn(
        { err: error },
        again ? 'the history index is damaged and is made again' : 'there is no history index',
      );
      if (!again) return null;
      rmSync(this.#folder, { recursive: true, force: true });
      return this.#tryOpen(false);
    }
  }

  #later(work: Work): void {
    if (this.#closed) return;
    this.#waiting.push(work);
    if (this.#opened) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), OPEN_AFTER_MS);
  }

  #write(): void {
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = null;
    });
  }

  async #writeAll(): Promise<void> {
    const database = await this.#open();
    for (let work = this.#waiting.shift(); work && database; work = this.#waiting.shift()) {
      try {
        await work(database);
      } catch (error) {
        // The files hold what was not written here; the next start compares and catches up.
        if (!this.#closed) this.#logger.error({ err: error }, 'the history index missed something');
      }
    }
  }

  /** Asks the database once everything told so far is in it. */
  async #ask<T>(work: (database: Database) => Promise<T>): Promise<T> {
    const database = await this.#open();
    while (this.#waiting.length > 0 && database) {
      this.#write();
      await this.#writing;
    }
    if (!database || this.#closed) {
      throw new ServerError('database', 'The history index is not there; restart the server to make it again.');
    }
    return work(database);
  }

  run(definition: RunDefinition): void {
    const { runId, createdAt, runHash, settings } = definition;
    const row = { runId, createdAt, runHash, name: settings.name, strategy: settings.strategy };
    this.#later((database) => database.insert(runs).values(row).onConflictDoNothing());
  }

  upload({ receipt }: UploadRecord): void {
    this.#later((database) => database.insert(receipts).values(receipt).onConflictDoNothing());
  }

  round(runId: string, record: RoundRecord): void {
    this.#later((database) => writeRound(database, runId, record));
  }

  withdrawn(receiptId: string): void {
    this.#later((database) => database.delete(receipts).where(eq(receipts.receiptId, receiptId)));
  }

  forgotten(runId: string, clientId: string, records: readonly RoundRecord[]): void {
    this.#later(async (database) => {
      await database.delete(receipts).where(and(eq(receipts.runId, runId), eq(receipts.clientId, clientId)));
      const ofClient = and(eq(contributions.runId, runId), eq(contributions.clientId, clientId));
      await database.delete(contributions).where(ofClient);
      for (const record of records) await writeRound(database, runId, record);
    });
  }

  /** Adds what the index lacks of a run's files. */
  catchUp(definition: RunDefinition, store: RunStore): void {
    this.run(definition);
    this.#later(async (database) => {
      const { runId } = definition;
      const files = store.readRounds();
      const uploads = store
        .uploadRounds()
        .flatMap((round) => store.readUploads(round))
        .filter((record) => record.withdrawn === null);
      const [kept] = await database.select({ rows: count() }).from(rounds).where(eq(rounds.runId, runId));
      const [known] = await database.select({ rows: count() }).from(receipts).where(eq(receipts.runId, runId));
      if (kept?.rows !== files.length) for (const { record } of files) await writeRound(database, runId, record);
      const people = new Set(files.flatMap(({ record }) => record.contributions.map((each) => each.clientId)));
      const indexed = await database
        .selectDistinct({ clientId: contributions.clientId })
        .from(contributions)
        .where(eq(contributions.runId, runId));
      const strays = indexed.map(({ clientId }) => clientId).filter((clientId) => !people.has(clientId));
      if (strays.length > 0) {
        // Somebody was forgotten, and the server ended before the index knew.
        const ofStrays = and(eq(contributions.runId, runId), inArray(contributions.clientId, strays));
        await database.delete(contributions).where(ofStrays);
        for (const { record } of files) await writeRound(database, runId, record);
      }
      if (known?.rows !== uploads.length) {
        await database.delete(receipts).where(eq(receipts.runId, runId));
        for (const { receipt } of uploads) await database.insert(receipts).values(receipt).onConflictDoNothing();
      }
    });
  }

  /** Who has contributed to a run, most target tokens first. */
  contributors(runId: string): Promise<Contributor[]> {
    return this.#ask(async (database) => {
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
        .orderBy(desc(tokens), contributions.clientId);
      return rows.map((row) => ({ ...row, largestRank: row.largestRank ?? 0, lastRound: row.lastRound ?? 0 }));
    });
  }

  /** What was not written is written after the next start. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.#waiting.length = 0;
    if (!this.#opened) {
      await this.#connection?.end();
      return;
    }
    await this.#writing;
    await this.#connection?.close();
  }
}

async function writeRound(database: Database, runId: string, record: RoundRecord): Promise<void> {
  const { round, version, outcome, reason, endedAt, mergeMs, trainLoss, heldOutLoss } = record;
  const row = { runId, round, version, outcome, reason, endedAt, mergeMs, trainLoss, heldOutLoss };
  await database
    .insert(rounds)
    .values(row)
    .onConflictDoUpdate({ target: [rounds.runId, rounds.round], set: row });
  for (const contribution of oneForEach(record.contributions)) {
    const values = { runId, round, ...contribution };
    await database
      .insert(contributions)
      .values(values)
      .onConflictDoUpdate({
        target: [contributions.runId, contributions.round, contributions.clientId],
        set: values,
      });
  }
}

/** One row a client: what it had in the merge in time and what came late, together. */
function oneForEach(all: readonly Contribution[]) {
  const rows = new Map<string, Omit<typeof contributions.$inferInsert, 'runId' | 'round'>>();
  for (const { clientId, name, rank, task, targetTokens, examples, uploadBytes, weight, quarantined } of all) {
    const before = rows.get(clientId);
    rows.set(clientId, {
      clientId,
      name,
      rank: Math.max(rank, before?.rank ?? 0),
      task: before?.task ?? task,
      targetTokens: targetTokens + (before?.targetTokens ?? 0),
      examples: examples + (before?.examples ?? 0),
      uploadBytes: uploadBytes + (before?.uploadBytes ?? 0),
      weight: weight + (before?.weight ?? 0),
      quarantined: before?.quarantined ?? quarantined,
    });
  }
  return rows.values();
}
