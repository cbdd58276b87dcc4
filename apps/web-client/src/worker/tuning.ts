// Which kernel variants are fastest on this browser's GPU adapter, kept in IndexedDB between visits.
import type { TuningStore } from '@weft/trainer';
import { createStore, get, set } from 'idb-keyval';

/** Choices by adapter. Reading and saving reject as IndexedDB does. */
export function storedTuning(): TuningStore {
  const store = createStore('weft-kernel-variants', 'by-adapter');
  return {
    load: (adapter) => get<Record<string, string>>(adapter, store),
    save: (adapter, choices) => set(adapter, choices, store),
  };
}
