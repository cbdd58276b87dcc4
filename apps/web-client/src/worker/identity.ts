// The keys this browser is known by: one a run, so that its runs cannot be linked by them. The private half cannot be exported;
// IndexedDB keeps the handle. Two tabs at once are two volunteers, so each open tab holds a number by a lock, and the first
// tab always has the first. The single key of earlier versions still stands for the runs made before there were others.
import { generateKeys, type Identities, type Identity, identityOf } from '@weft/volunteer';
import { createStore, del, get, set, type UseStore } from 'idb-keyval';

const MOST_TABS = 64;

/** Takes the first free number; held until this worker ends. */
async function takeNumber(): Promise<number> {
  for (let number = 0; number < MOST_TABS; number += 1) {
    const taken = await new Promise<boolean>((resolve, reject) => {
      navigator.locks
        .request(`weft-volunteer-${number}`, { ifAvailable: true }, (lock) => {
          resolve(lock !== null);
          // Never settled: the lock ends with the worker.
          return lock === null ? undefined : new Promise<never>(() => undefined);
        })
        .catch(reject);
    });
    if (taken) return number;
  }
  throw new Error(`${MOST_TABS} tabs of this site are open in this browser; close some.`);
}

export interface TabKeys extends Identities {
  /** Deletes the key for a run, and the old single key where it stood for it. */
  remove(run: { readonly runId: string; readonly createdAt: string }): Promise<void>;
}

/** Keys for this visit only: no database in this window, as openStorage() says of the files. */
function visitKeys(): TabKeys {
  const made = new Map<string, Identity>();
  return {
    async of({ runId }) {
      const known = made.get(runId) ?? (await identityOf(await generateKeys(false)));
      made.set(runId, known);
      return known;
    },
    async remove({ runId }) {
      made.delete(runId);
    },
  };
}

/** When the old key stopped being the only one, ISO 8601; null where there is none. */
async function oldKeyUntil(name: string, store: UseStore): Promise<string | null> {
  if (!(await get<CryptoKeyPair>(name, store))) return null;
  const known = await get<string>(`${name}/until`, store);
  if (known !== undefined) return known;
  const until = new Date().toISOString();
  await set(`${name}/until`, until, store);
  return until;
}

export async function openIdentities(): Promise<TabKeys> {
  const name = `volunteer-${await takeNumber()}`;
  let store: UseStore;
  let until: string | null;
  try {
    store = createStore('weft-keys', 'keys');
    until = await oldKeyUntil(name, store);
  } catch {
    return visitKeys();
  }
  const standsFor = (createdAt: string): boolean => until !== null && createdAt < until;
  return {
    async of({ runId, createdAt }) {
      const kept = await get<CryptoKeyPair>(`${name}/${runId}`, store);
      if (kept) return identityOf(kept);
      const old = standsFor(createdAt) ? await get<CryptoKeyPair>(name, store) : undefined;
      if (old) return identityOf(old);
      const keys = await generateKeys(false);
      await set(`${name}/${runId}`, keys, store);
      return identityOf(keys);
    },
    async remove({ runId, createdAt }) {
      await del(`${name}/${runId}`, store);
      if (standsFor(createdAt)) await del(name, store);
    },
  };
}
