// What the index of past work is told. The files beside it are the truth; the index answers questions over many of them.
import type { Receipt, RoundRecord } from '@weft/protocol';

/** What the index keeps of a receipt. */
export type IndexedReceipt = Pick<
  Receipt,
  'receiptId' | 'runId' | 'round' | 'clientId' | 'leaseId' | 'sha256' | 'bytes' | 'targetTokens' | 'acceptedAt'
>;

/** What the index reads of an upload's sidecar. */
export interface Receipted {
  readonly receipt: IndexedReceipt;
  /** When its volunteer took it back, which keeps it out of the index; null where it stands. */
  readonly withdrawn: string | null;
}

/** A run as the index finds it in memory and on disk. */
export interface IndexedRun {
  readonly definition: {
    readonly runId: string;
    readonly createdAt: string;
    readonly runHash: string;
    readonly settings: { readonly name: string; readonly strategy: string };
  };
  readonly store: {
    uploadRounds(): readonly number[];
    /** Ids of the leases that have a sidecar in the round, ascending. */
    uploadLeases(round: number): readonly string[];
    /** null when it is gone. */
    readUpload(round: number, leaseId: string): Receipted | null;
  };
  /** All ended rounds with their held-out losses, oldest first. */
  records(): readonly RoundRecord[];
}

/** Calls return at once; the index catches up behind. Tell it after the file is written, never before. */
export interface HistoryIndex {
  /** A run was loaded or created: adds what the index lacks of its files. */
  catchUp(run: IndexedRun): void;
  /** Files of a run were removed or rewritten, such as a forgotten volunteer's: compares the index with them again. */
  filesChanged(runId: string): void;
  /** Sidecars of a round were removed or rewritten, such as one taken back: reads them again. */
  receiptsChanged(runId: string, round: number): void;
  upload(record: Pick<Receipted, 'receipt'>): void;
  round(runId: string, record: RoundRecord): void;
}
