// What is on disk of one run. Definition, receipts, rounds and evaluations are the truth, each a file written once; where the
// round stands is kept by `machine-journal.ts`. The database is an index of these and can be made again from them.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  blobReferenceSchema,
  evaluationResultSchema,
  grantSchema,
  idSchema,
  receiptSchema,
  roundRecordSchema,
  runIdentitySchema,
  runSettingsSchema,
  sha256Schema,
  uploadBeginSchema,
  uploadOutcomeSchema,
} from '@weft/protocol';
import type { Logger } from 'pino';
import { z } from 'zod';
import { machineStateSchema } from '../coordinator/schema.ts';
import type { CheckReport } from './check-report.ts';
import { EventLog } from './event-log.ts';
import { readJson, syncFolder, writeDurably, writeJson } from './files.ts';
import { MachineJournal } from './machine-journal.ts';

export const runDefinitionSchema = z.object({
  runId: idSchema,
  createdAt: z.iso.datetime(),
  settings: runSettingsSchema,
  manifestHash: sha256Schema,
  identity: runIdentitySchema,
  runHash: sha256Schema,
});
export type RunDefinition = z.infer<typeof runDefinitionSchema>;

/** Receipts of servers that did not sign yet; whoever hands one out again signs it first. */
const storedReceiptSchema = z.preprocess(
  (value) => (value !== null && typeof value === 'object' ? { keyId: 'none', signature: '', ...value } : value),
  receiptSchema,
);

/** Sidecar of an upload: the receipt, and all a merge needs to know besides the bytes. */
export const uploadRecordSchema = z.object({
  receipt: storedReceiptSchema,
  begin: uploadBeginSchema,
  name: z.string().nullable(),
  rank: z.int(),
  grant: grantSchema,
  /** Ranks of the factors sent: the grant, or what a client that pruned has left of it. */
  sent: grantSchema,
  task: idSchema.nullable(),
  own: z.boolean(),
  startVersion: z.int(),
  /** When its volunteer took it back; its blob is gone then. */
  withdrawn: z.iso.datetime().nullable().default(null),
});
export type UploadRecord = z.infer<typeof uploadRecordSchema>;

/** A leaf of a round's hash tree. `receiptId`: null once its volunteer asked to be forgotten. */
const leafSchema = z.object({
  receiptId: idSchema.nullable(),
  outcome: uploadOutcomeSchema,
  hash: sha256Schema,
});
export type Leaf = z.infer<typeof leafSchema>;

/** End of a round. `global`: the committed state of all matrices; null when abandoned. `leaves`: in the tree's order. */
export const roundFileSchema = z.object({
  record: roundRecordSchema,
  global: blobReferenceSchema.nullable(),
  leaves: z.array(leafSchema).default([]),
  /** What the commit has settled: uploads it quarantined, and late work. null in files of earlier versions. */
  settled: z
    .object({
      quarantined: z.array(z.object({ leaseId: z.string(), reason: z.string() })),
      late: z.array(z.string()),
    })
    .nullable()
    .default(null),
});
export type RoundFile = z.infer<typeof roundFileSchema>;

export const evaluationFileSchema = z.object({
  version: z.int(),
  at: z.iso.datetime(),
  clientId: idSchema,
  results: z.array(evaluationResultSchema),
});
/** A volunteer being forgotten: written before anything is removed, so that a kill in between is made good. */
const forgettingSchema = z.object({ clientId: idSchema, pseudonym: idSchema });
export type Forgetting = z.infer<typeof forgettingSchema>;

export type EvaluationFile = z.infer<typeof evaluationFileSchema>;

const byNumber = (a: string, b: string) => Number.parseInt(a, 10) - Number.parseInt(b, 10);

export class RunStore {
  readonly #folder: string;
  readonly #events: EventLog;

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
    this.#events = new EventLog(folder);
  }

  readDefinition(): RunDefinition | null {
    return readJson(join(this.#folder, 'run.json'), runDefinitionSchema);
  }

  writeDefinition(definition: RunDefinition): void {
    writeJson(join(this.#folder, 'run.json'), definition);
  }

  /** Where the round stands. */
  machineJournal(logger: Logger, report: CheckReport | null): MachineJournal {
    return new MachineJournal(this.#folder, machineStateSchema, logger, report);
  }

  /** Where the sidecar of an upload goes, and what it says; the caller makes it durable together with the upload. */
  uploadSidecar(record: UploadRecord): { readonly sidecar: string; readonly content: string } {
    const { round, leaseId } = record.receipt;
    const sidecar = join(this.#folder, 'uploads', String(round), `${leaseId}.json`);
    return { sidecar, content: `${JSON.stringify(record, null, 1)}\n` };
  }

  /** Writes a sidecar again, as when its upload was taken back. */
  writeUpload(record: UploadRecord): void {
    const { sidecar, content } = this.uploadSidecar(record);
    writeDurably(sidecar, content);
  }

  /** Sidecars of a round, in the order of their leases' ids. */
  readUploads(round: number): UploadRecord[] {
    return this.#readAll(join('uploads', String(round)), uploadRecordSchema);
  }

  readUpload(round: number, leaseId: string): UploadRecord | null {
    return readJson(join(this.#folder, 'uploads', String(round), `${leaseId}.json`), uploadRecordSchema);
  }

  /** Deletes a sidecar; durable when this returns. */
  removeUpload(round: number, leaseId: string): void {
    const folder = join(this.#folder, 'uploads', String(round));
    rmSync(join(folder, `${leaseId}.json`), { force: true });
    syncFolder(folder);
  }

  /** Rounds that have uploads, ascending. */
  uploadRounds(): number[] {
    const folder = join(this.#folder, 'uploads');
    if (!existsSync(folder)) return [];
    return readdirSync(folder)
      .filter((name) => /^\d+$/.test(name))
      .sort(byNumber)
      .map(Number);
  }

  /** Ids of the leases that have delivered in a round, ascending; reads names only. */
  uploadLeases(round: number): string[] {
    const folder = join(this.#folder, 'uploads', String(round));
    if (!existsSync(folder)) return [];
    return readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .map((name) => name.slice(0, -'.json'.length))
      .sort();
  }

  /** Whether the bytes of a round's uploads have been removed, their time being over. */
  isSwept(round: number): boolean {
    return existsSync(join(this.#folder, 'swept', `${round}.json`));
  }

  writeSwept(round: number, swept: { at: string; uploads: number; bytes: number }): void {
    writeJson(join(this.#folder, 'swept', `${round}.json`), swept);
  }

  writeRound(file: RoundFile): void {
    writeJson(join(this.#folder, 'rounds', `${file.record.round}.json`), file);
  }

  /** All ended rounds, oldest first. */
  readRounds(): RoundFile[] {
    return this.#readAll('rounds', roundFileSchema);
  }

  writeEvaluation(file: EvaluationFile): void {
    writeJson(join(this.#folder, 'evaluations', `${file.version}.json`), file);
  }

  readEvaluations(): EvaluationFile[] {
    return this.#readAll('evaluations', evaluationFileSchema);
  }

  /** Start weights made so far, by grant key. */
  readStart(version: number, key: string): z.infer<typeof blobReferenceSchema> | null {
    return readJson(join(this.#folder, 'starts', String(version), `${key}.json`), blobReferenceSchema);
  }

  writeStart(version: number, key: string, start: z.infer<typeof blobReferenceSchema>): void {
    writeJson(join(this.#folder, 'starts', String(version), `${key}.json`), start);
  }

  writeForgetting(entry: Forgetting): void {
    writeJson(join(this.#folder, 'forgetting', `${entry.clientId}.json`), entry);
  }

  readForgetting(): Forgetting[] {
    return this.#readAll('forgetting', forgettingSchema);
  }

  /** The volunteer is forgotten: nothing of this is left to do. */
  removeForgetting({ clientId }: Forgetting): void {
    const folder = join(this.#folder, 'forgetting');
    rmSync(join(folder, `${clientId}.json`), { force: true });
    syncFolder(folder);
  }

  /** All start weights made so far, with the version they are of and their key. */
  readStarts(): { version: number; key: string; sha256: string; bytes: number }[] {
    const folder = join(this.#folder, 'starts');
    if (!existsSync(folder)) return [];
    return readdirSync(folder).flatMap((version) =>
      readdirSync(join(folder, version))
        .filter((name) => name.endsWith('.json'))
        .flatMap((name) => {
          const key = name.slice(0, -'.json'.length);
          const start = this.readStart(Number(version), key);
          return start ? [{ version: Number(version), key, ...start }] : [];
        }),
    );
  }

  removeStart(version: number, key: string): void {
    rmSync(join(this.#folder, 'starts', String(version), `${key}.json`), { force: true });
  }

  /** Files of the run's events, older first. */
  get eventPaths(): string[] {
    return this.#events.paths();
  }

  /** One more line of the run's history. The file stays open: opening one waits for what the disk is flushing. */
  appendEvent(event: Record<string, unknown>): void {
    this.#events.append(event);
  }

  /** Nothing may be appended afterwards. */
  close(): void {
    this.#events.close();
  }

  /** Replaces the lines of the run's history for which `change` gives others. */
  rewriteEvents(change: (line: string) => string): void {
    this.#events.rewrite(change);
  }

  #readAll<T extends z.ZodType>(folder: string, schema: T): z.output<T>[] {
    const path = join(this.#folder, folder);
    if (!existsSync(path)) return [];
    const names = readdirSync(path).filter((name) => name.endsWith('.json'));
    names.sort((a, b) => byNumber(a, b) || (a < b ? -1 : 1));
    return names.flatMap((name) => readJson(join(path, name), schema) ?? []);
  }
}
