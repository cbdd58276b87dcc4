// The key this browser is known by. The private half cannot be exported; IndexedDB keeps the handle. Two tabs at once are
// two volunteers, so each open tab holds a numbered key of its own by a lock, and the first tab always has the first.
import { generateKeys, type Identity, identityOf } from '@weft/volunteer';
import { createStore, get, set } from 'idb-keyval';

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

export async function openIdentity(): Promise<Identity> {
  const number = await takeNumber();
  let store: ReturnType<typeof createStore>;
  let kept: CryptoKeyPair | undefined;
  try {
    store = createStore('weft-keys', 'keys');
    kept = await get<CryptoKeyPair>(`volunteer-${number}`, store);
  } catch {
    // No database in this window: the key lasts for this visit, as openStorage() says of the files.
    return identityOf(await generateKeys(false));
  }
  if (kept) return identityOf(kept);
  const keys = await generateKeys(false);
  await set(`volunteer-${number}`, keys, store);
  return identityOf(keys);
}
