// What rank self-pruning has left each client of a run: no more is granted to it. It counts from the receipt on, whatever becomes
// of the round, because the client has pruned itself by then and may ask for its next place at once. Read off the sidecars.
import type { RunStore, UploadRecord } from '../store/run-store.ts';

export class PrunedRanks {
  readonly #ranks = new Map<string, number>();

  /** Reads all uploads of the run where it prunes. */
  constructor(store: Pick<RunStore, 'uploadRounds' | 'readUploads'>, prunes: boolean) {
    if (!prunes) return;
    for (const round of store.uploadRounds()) for (const record of store.readUploads(round)) this.note(record);
  }

  note({ receipt, rank, grant }: Pick<UploadRecord, 'receipt' | 'rank' | 'grant'>): void {
    if (rank < grant.rank) this.#ranks.set(receipt.clientId, Math.min(rank, this.#ranks.get(receipt.clientId) ?? rank));
  }

  forget(clientId: string): void {
    this.#ranks.delete(clientId);
  }

  /** Rank that may be granted to a client which asks for `rank`. */
  cap(clientId: string, rank: number): number {
    return Math.min(rank, this.#ranks.get(clientId) ?? rank);
  }
}
