// What is on disk of one run. Definition, receipts, rounds and evaluations are the truth, each a file written once;
// `state.json` is where the round stands. The database is an index of these and can be made again from them.
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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
import { z } from 'zod';
import type { MachineState } from '../coordinator/types.ts';
import { readJson, syncFolder, writeDurably, writeJson } from './files.ts';

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

const leaseEntrySchema = z.object({
  leaseId: z.string(),
  clientId: z.string(),
  key: z.string(),
  rank: z.int(),
  task: z.string().nullable(),
  own: z.boolean(),
});
const machineStateSchema = z.object({
  policy: z.object({
    goal: z.int(),
    minimum: z.int(),
    ownFileMinimum: z.int(),
    deterministic: z.boolean(),
    seed: z.string(),
    tasks: z.array(z.string()),
    rounds: z.int(),
    selectionMs: z.number(),
    graceMs: z.number(),
    trainingMs: z.number(),
    mergingMs: z.number(),
    restMs: z.number(),
  }),
  run: z.enum(['created', 'running', 'paused', 'completed', 'stopped']),
  version: z.int(),
  round: z.int(),
  phase: z.enum(['idle', 'selecting', 'training', 'merging', 'committed', 'abandoned']),
  remainingMs: z.number().nullable(),
  graceMs: z.number().nullable(),
  places: z.int(),
  present: z.int(),
  leases: z.array(
    leaseEntrySchema.extend({
      state: z.enum(['live', 'uploaded', 'quarantined', 'dropped']),
      reason: z.string().nullable(),
    }),
  ),
  wishes: z.array(leaseEntrySchema),
  reason: z.string().nullable(),
});

const byNumber = (a: string, b: string) => Number.parseInt(a, 10) - Number.parseInt(b, 10);

export class RunStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  readDefinition(): RunDefinition | null {
    return readJson(join(this.#folder, 'run.json'), runDefinitionSchema);
  }

  writeDefinition(definition: RunDefinition): void {
    writeJson(join(this.#folder, 'run.json'), definition);
  }

  readState(): MachineState | null {
    return readJson(join(this.#folder, 'state.json'), machineStateSchema);
  }

  /** `flush: false` for the mere passing of time, which may be lost. */
  writeState(state: MachineState, options: { flush: boolean }): void {
    writeJson(join(this.#folder, 'state.json'), state, options);
  }

  writeUpload(record: UploadRecord): void {
    const { round, leaseId } = record.receipt;
    writeJson(join(this.#folder, 'uploads', String(round), `${leaseId}.json`), record);
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
    return existsSync(folder) ? readdirSync(folder).sort(byNumber).map(Number) : [];
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

  get eventsPath(): string {
    return join(this.#folder, 'events.jsonl');
  }

  /** One more line of the run's history. */
  appendEvent(event: Record<string, unknown>): void {
    appendFileSync(this.eventsPath, `${JSON.stringify(event)}\n`);
  }

  /** Replaces the lines of the run's history for which `change` gives others. */
  rewriteEvents(change: (line: string) => string): void {
    if (!existsSync(this.eventsPath)) return;
    const before = readFileSync(this.eventsPath, 'utf8');
    const after = before
      .split('\n')
      .map((line) => (line === '' ? line : change(line)))
      .join('\n');
    if (after !== before) writeDurably(this.eventsPath, after);
  }

  #readAll<T extends z.ZodType>(folder: string, schema: T): z.output<T>[] {
    const path = join(this.#folder, folder);
    if (!existsSync(path)) return [];
    const names = readdirSync(path).filter((name) => name.endsWith('.json'));
    names.sort((a, b) => byNumber(a, b) || (a < b ? -1 : 1));
    return names.flatMap((name) => readJson(join(path, name), schema) ?? []);
  }
}
