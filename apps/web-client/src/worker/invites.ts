// The invite a volunteer came with, kept for its run: the address bar loses it at once, and a later visit finds it here.
import { createStore, get, set } from 'idb-keyval';

/** Links without a run's name are for the server's newest. */
const keyOf = (runId: string | null): string => runId ?? 'newest';

/** The invite to come with: that of the address, else the one kept. Windows without a database know the first only. */
export async function inviteFor(runId: string | null, given: string | null): Promise<string | null> {
  try {
    const store = createStore('weft-invites', 'invites');
    if (given === null) return (await get<string>(keyOf(runId), store)) ?? null;
    await set(keyOf(runId), given, store);
  } catch {
    // No database in this window, which openStorage() says of the files: the invite holds for this visit.
  }
  return given;
}
