// What the index of past work is told. The files beside it are the truth; the index answers questions over many of them.
import type { RoundRecord } from '@weft/protocol';
import type { RunDefinition, RunStore, UploadRecord } from './run-store.ts';

/** Calls return at once; the index catches up behind. */
export interface HistoryIndex {
  run(definition: RunDefinition): void;
  /** Adds what the index lacks of a run's files. */
  catchUp(definition: RunDefinition, store: RunStore): void;
  upload(record: UploadRecord): void;
  round(runId: string, record: RoundRecord): void;
  /** The upload was taken back. */
  withdrawn(receiptId: string): void;
  /** This client is in the run's files no more; `records` are its rounds as they are told now. */
  forgotten(runId: string, clientId: string, records: readonly RoundRecord[]): void;
}
