// What the dashboard knows and can do: signals for the views, functions for the buttons. The server's snapshots are the
// truth; nothing here counts on its own.
import { signal } from '@preact/signals';
import {
  type Ban,
  type Overview,
  ProtocolError,
  ROUTES,
  type RunSettingsInput,
  type RunSnapshot,
  wireErrorSchema,
} from '@weft/protocol';
import { AdminConnection, type LineState } from './connection.ts';
import { type AdminProblem, describeAdminError } from './problems.ts';

const TOKEN_KEY = 'weft-admin-token';

/** What the main pane shows: a run's id, the form for a new one, or nothing chosen yet. */
export type Place =
  | { readonly kind: 'run'; readonly runId: string }
  | { readonly kind: 'new' }
  | { readonly kind: 'none' };

export const signedIn = signal<'no' | 'trying' | 'yes'>('no');
export const line = signal<LineState>('connecting');
export const overview = signal<Overview | null>(null);
/** Who is banned from this server, latest first. */
export const bans = signal<readonly Ban[]>([]);
export const place = signal<Place>(placeOf(location.hash));
export const snapshot = signal<RunSnapshot | null>(null);
/** When {@link snapshot} came, on performance.now(): countdowns run on from there. */
export const snapshotAt = signal(0);
export const problem = signal<AdminProblem | null>(null);
/** The command being carried out, if any: its button waits. */
export const busy = signal<string | null>(null);

let connection: AdminConnection | null = null;
let token = '';

function placeOf(hash: string): Place {
  if (hash === '#new') return { kind: 'new' };
  const runId = /^#run=([A-Za-z0-9_-]{1,64})$/.exec(hash)?.[1];
  return runId === undefined ? { kind: 'none' } : { kind: 'run', runId };
}

export function go(next: Place): void {
  location.hash = next.kind === 'run' ? `run=${next.runId}` : next.kind === 'new' ? 'new' : '';
}

/** Starts with the token of this tab's session, where there is one. */
export function begin(): void {
  addEventListener('hashchange', () => {
    place.value = placeOf(location.hash);
    problem.value = null;
    void watch();
  });
  const kept = sessionStorage.getItem(TOKEN_KEY);
  if (kept) signIn(kept);
}

export function signIn(given: string): void {
  connection?.close();
  problem.value = null;
  signedIn.value = 'trying';
  token = given;
  connection = new AdminConnection(given, {
    onLine: (state) => {
      line.value = state;
      if (state === 'connected') void greet();
    },
    onNotice: (event, payload) => {
      if (event === 'admin:overview') setOverview(payload as Overview);
      else setSnapshot(payload as RunSnapshot);
    },
  });
}

export function signOut(): void {
  connection?.close();
  connection = null;
  token = '';
  sessionStorage.removeItem(TOKEN_KEY);
  signedIn.value = 'no';
  overview.value = null;
  snapshot.value = null;
  problem.value = null;
}

/** Asks for everything after each (re)connection: the server forgets who watched what. */
async function greet(): Promise<void> {
  try {
    const reply = await connection?.request('admin:overview', {});
    if (!reply) return;
    sessionStorage.setItem(TOKEN_KEY, token);
    signedIn.value = 'yes';
    problem.value = null;
    setOverview(reply);
    bans.value = (await connection?.request('admin:bans', {}))?.bans ?? [];
    await watch();
  } catch (error) {
    const refused =
      error instanceof ProtocolError && (error.code === 'unauthorised' || error.code === 'protocol-version');
    if (refused) signOut();
    problem.value = describeAdminError(error);
  }
}

function setOverview(next: Overview): void {
  overview.value = next;
  // With one run there is nothing to choose; the newest stands first in mind of whoever comes back.
  const newest = next.runs.at(-1);
  if (place.value.kind === 'none' && newest) go({ kind: 'run', runId: newest.runId });
}

function setSnapshot(next: RunSnapshot): void {
  if (place.value.kind !== 'run' || next.run.runId !== place.value.runId) return;
  snapshot.value = next;
  snapshotAt.value = performance.now();
}

async function watch(): Promise<void> {
  const { value } = place;
  if (value.kind !== 'run') {
    snapshot.value = null;
    return;
  }
  if (snapshot.value?.run.runId !== value.runId) snapshot.value = null;
  if (!connection || signedIn.value !== 'yes') return;
  try {
    setSnapshot(await connection.request('admin:watch', { runId: value.runId }));
  } catch (error) {
    problem.value = describeAdminError(error);
  }
}

export type Command = 'start' | 'pause' | 'close-round' | 'stop';

export async function command(name: Command, runId: string): Promise<void> {
  if (!connection) return;
  busy.value = name;
  problem.value = null;
  try {
    await connection.request(`admin:${name}`, { runId });
    await watch();
  } catch (error) {
    problem.value = describeAdminError(error);
  } finally {
    busy.value = null;
  }
}

async function changeBans(work: (asked: AdminConnection) => Promise<{ bans: readonly Ban[] }>): Promise<void> {
  if (!connection) return;
  busy.value = 'ban';
  problem.value = null;
  try {
    bans.value = (await work(connection)).bans;
    await watch();
  } catch (error) {
    problem.value = describeAdminError(error);
  } finally {
    busy.value = null;
  }
}

export const ban = (wish: { clientId: string; reason: string; address: boolean }): Promise<void> =>
  changeBans((asked) => asked.request('admin:ban', wish));

export const unban = (clientId: string): Promise<void> =>
  changeBans((asked) => asked.request('admin:unban', { clientId }));

/** Creates the run and opens it. Returns false, with {@link problem} set, where the server refuses. */
export async function createRun(settings: RunSettingsInput): Promise<boolean> {
  if (!connection) return false;
  busy.value = 'create';
  problem.value = null;
  try {
    const run = await connection.request('admin:create', settings);
    go({ kind: 'run', runId: run.runId });
    return true;
  } catch (error) {
    problem.value = describeAdminError(error);
    return false;
  } finally {
    busy.value = null;
  }
}

/** Fetches a file that needs the token and hands it to the browser to save. */
export async function saveFile(path: string, name: string): Promise<void> {
  busy.value = 'download';
  problem.value = null;
  try {
    const response = await fetch(path, { headers: { authorization: `Bearer ${token}` } });
    if (!response.ok) {
      const body: unknown = await response.json().catch(() => null);
      const wire = wireErrorSchema.safeParse(
        body !== null && typeof body === 'object' && 'error' in body ? body.error : null,
      );
      throw wire.success
        ? ProtocolError.fromWire(wire.data)
        : new Error(`GET ${path} was answered with HTTP ${response.status}.`);
    }
    const url = URL.createObjectURL(await response.blob());
    const anchor = Object.assign(document.createElement('a'), { href: url, download: name });
    anchor.click();
    // The browser has taken the blob over once the click is handled.
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  } catch (error) {
    problem.value = describeAdminError(error);
  } finally {
    busy.value = null;
  }
}

export function saveAdapter(runId: string, rank: number, version: number): Promise<void> {
  const path = `${ROUTES.adapter(runId, 'adapter.zip')}?rank=${rank}&version=${version}`;
  return saveFile(path, `${runId}-v${version}-r${rank}.zip`);
}

export function saveEvents(runId: string): Promise<void> {
  return saveFile(ROUTES.events(runId), `${runId}.events.jsonl`);
}
