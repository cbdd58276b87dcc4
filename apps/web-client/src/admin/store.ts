// What the dashboard knows and can do: signals for the views, functions for the buttons. The server's snapshots are the
// truth; nothing here counts on its own.
import { signal } from '@preact/signals';
import {
  type Actor,
  type AdminRequests,
  type Ban,
  type ClientPage,
  type ClientQuery,
  type Health,
  healthSchema,
  type Overview,
  ProtocolError,
  ROUTES,
  type Role,
  type RunSettingsInput,
  type RunSnapshot,
  roleReaches,
  signInReplySchema,
  wireErrorSchema,
} from '@weft/protocol';
import type { z } from 'zod';
import { AdminConnection, type LineState } from './connection.ts';
import { type AdminProblem, describeAdminError } from './problems.ts';

const TOKEN_KEY = 'weft-admin-token';

/** What the main pane shows: a run, the form for a new one, the accounts, or nothing chosen yet. */
export type Place =
  | { readonly kind: 'run'; readonly runId: string }
  | { readonly kind: 'new' }
  | { readonly kind: 'accounts' }
  | { readonly kind: 'none' };

export const signedIn = signal<'no' | 'trying' | 'yes'>('no');
/** Who the server takes us for; null until it has said so. */
export const actor = signal<Actor | null>(null);
export const line = signal<LineState>('connecting');
export const overview = signal<Overview | null>(null);
/** Who is banned from this server, latest first. */
export const bans = signal<readonly Ban[]>([]);
/** What the server's last start found in its data folder: counts by kind. */
export const findings = signal<Health['storage']['findings']>({});
// Outside a browser, where the panes' words are tested, there is no address.
export const place = signal<Place>(placeOf(typeof location === 'undefined' ? '' : location.hash));
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
  if (hash === '#accounts') return { kind: 'accounts' };
  const runId = /^#run=([A-Za-z0-9_-]{1,64})$/.exec(hash)?.[1];
  return runId === undefined ? { kind: 'none' } : { kind: 'run', runId };
}

export function go(next: Place): void {
  location.hash = next.kind === 'run' ? `run=${next.runId}` : next.kind === 'none' ? '' : next.kind;
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

/** Whether the server lets us do what takes `role`. It checks again; this only spares a refusal. */
export const may = (role: Role): boolean => actor.value !== null && roleReaches(actor.value.role, role);

/** Why not, for the button that is off; undefined where one may. */
export function whyNot(role: Role): string | undefined {
  if (may(role)) return undefined;
  return `This takes the role ${role}; yours is ${actor.value?.role ?? 'not known yet'}. An owner can change that.`;
}

/** Signs in with an account; the session's token then stands for it. */
export async function signInAs(name: string, password: string): Promise<void> {
  problem.value = null;
  signedIn.value = 'trying';
  try {
    const response = await fetch(ROUTES.sessions, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name, password }),
    });
    if (!response.ok) throw await failureOf(response, `POST ${ROUTES.sessions}`);
    signIn(signInReplySchema.parse(await response.json()).token);
  } catch (error) {
    signedIn.value = 'no';
    // What to do about a wrong password stands in the server's own sentence.
    problem.value = { ...describeAdminError(error), remedy: null };
  }
}

/** What the server says of a request that it refused. */
async function failureOf(response: Response, what: string): Promise<Error> {
  const body: unknown = await response.json().catch(() => null);
  const wire = wireErrorSchema.safeParse(
    body !== null && typeof body === 'object' && 'error' in body ? body.error : null,
  );
  return wire.success
    ? ProtocolError.fromWire(wire.data)
    : new Error(`${what} was answered with HTTP ${response.status}.`);
}

/** Ends the session on the server too, where there is one. */
export async function signOut(): Promise<void> {
  const [session, credential] = [actor.value?.sessionId ?? null, token];
  forget();
  if (session === null) return;
  try {
    const headers = { authorization: `Bearer ${credential}` };
    const response = await fetch(ROUTES.session('current'), { method: 'DELETE', headers });
    if (!response.ok && response.status !== 401) throw await failureOf(response, 'Signing out');
  } catch (error) {
    problem.value = describeAdminError(error);
  }
}

function forget(): void {
  connection?.close();
  actor.value = null;
  connection = null;
  token = '';
  sessionStorage.removeItem(TOKEN_KEY);
  signedIn.value = 'no';
  overview.value = null;
  findings.value = {};
  snapshot.value = null;
  problem.value = null;
}

/** Asks for everything after each (re)connection: the server forgets who watched what. */
async function greet(): Promise<void> {
  try {
    const who = await connection?.request('admin:whoami', {});
    const reply = await connection?.request('admin:overview', {});
    if (!who || !reply) return;
    actor.value = who;
    sessionStorage.setItem(TOKEN_KEY, token);
    signedIn.value = 'yes';
    problem.value = null;
    setOverview(reply);
    bans.value = (await connection?.request('admin:bans', {}))?.bans ?? [];
    await watch();
    await look();
  } catch (error) {
    const refused =
      error instanceof ProtocolError && (error.code === 'unauthorised' || error.code === 'protocol-version');
    const hadSession = actor.value !== null && actor.value.sessionId !== null;
    if (refused) forget();
    problem.value = { ...describeAdminError(error), ...(hadSession && { remedy: null }) };
  }
}

/** Asks what the server's start found. It is another one after every interruption. */
async function look(): Promise<void> {
  const response = await fetch(ROUTES.health);
  if (!response.ok) throw await failureOf(response, `GET ${ROUTES.health}`);
  findings.value = healthSchema.parse(await response.json()).storage.findings;
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

/** A request of the panes; null, with {@link problem} set, where it fails. */
export async function ask<E extends keyof AdminRequests>(
  event: E,
  payload: z.input<AdminRequests[E]['payload']>,
): Promise<z.output<AdminRequests[E]['reply']> | null> {
  if (!connection) return null;
  busy.value = event;
  problem.value = null;
  try {
    return await connection.request(event, payload);
  } catch (error) {
    problem.value = describeAdminError(error);
    return null;
  } finally {
    busy.value = null;
  }
}

/** A page of the device table, without the buttons waiting for it; null, with {@link problem} set, where it fails. */
export async function clientsPage(wish: ClientQuery): Promise<ClientPage | null> {
  if (!connection) return null;
  try {
    return await connection.request('admin:clients', wish);
  } catch (error) {
    problem.value = describeAdminError(error);
    return null;
  }
}

/** The requests that steer a run, without their prefix. */
export type Command = 'start' | 'pause' | 'extend' | 'close-round' | 'abort-round' | 'stop';

/** Returns false, with {@link problem} set, where the server refuses. */
export async function command<N extends Command>(
  name: N,
  wish: z.input<AdminRequests[`admin:${N}`]['payload']>,
): Promise<boolean> {
  if (!connection) return false;
  busy.value = name;
  problem.value = null;
  try {
    await connection.request(`admin:${name}`, wish);
    await watch();
    return true;
  } catch (error) {
    problem.value = describeAdminError(error);
    return false;
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
    if (!response.ok) throw await failureOf(response, `GET ${path}`);
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
