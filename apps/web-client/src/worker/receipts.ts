// Receipts kept in this browser, of all runs: what a volunteer can hold the server to. Shared by the tabs of this site.
import type { KeptReceipt } from '@weft/protocol';
import { createStore, del, delMany, set, type UseStore, values } from 'idb-keyval';

export interface ReceiptStore {
  keep(kept: KeptReceipt): Promise<void>;
  remove(receiptId: string): Promise<void>;
  /** Oldest first. */
  all(): Promise<KeptReceipt[]>;
  /** Removes those of one run. */
  forget(runId: string): Promise<void>;
}

const byTime = (kept: readonly KeptReceipt[]): KeptReceipt[] =>
  [...kept].sort((a, b) => (a.receipt.acceptedAt < b.receipt.acceptedAt ? -1 : 1));

/** For this visit only, where the window has no database. */
function visitReceipts(): ReceiptStore {
  const kept = new Map<string, KeptReceipt>();
  return {
    keep: async (each) => void kept.set(each.receipt.receiptId, each),
    remove: async (receiptId) => void kept.delete(receiptId),
    all: async () => byTime([...kept.values()]),
    async forget(runId) {
      for (const [id, { receipt }] of kept) if (receipt.runId === runId) kept.delete(id);
    },
  };
}

export async function openReceipts(): Promise<ReceiptStore> {
  let store: UseStore;
  try {
    store = createStore('weft-receipts', 'receipts');
    // A first look proves that the database opens.
    await values(store);
  } catch {
    return visitReceipts();
  }
  return {
    keep: (kept) => set(kept.receipt.receiptId, kept, store),
    remove: (receiptId) => del(receiptId, store),
    all: async () => byTime(await values<KeptReceipt>(store)),
    async forget(runId) {
      const all = await values<KeptReceipt>(store);
      const ids = all.flatMap(({ receipt }) => (receipt.runId === runId ? [receipt.receiptId] : []));
      await delMany(ids, store);
    },
  };
}
