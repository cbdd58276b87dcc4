// Talking to a Hugging Face hub: which one, as whom, and requests that wait and try again where that helps. What a hub
// refuses becomes a CommandError that says what to do.
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { getHFHubCachePath } from '@huggingface/hub';
import { CommandError, formatMs } from '../command.ts';
import { systemCode } from '../disk.ts';
import type { HubModel } from './spec.ts';

/** A hub, from the variables the whole ecosystem uses. */
export interface HubSettings {
  /** Without a slash at the end. */
  readonly endpoint: string;
  readonly token: string | null;
  /** Where downloads are kept for every tool that speaks the hub's cache layout. */
  readonly cache: string;
}

/** How long to bear with a hub. */
export interface Patience {
  /** Failures in a row before giving up. */
  readonly attempts: number;
  /** Pause after the first of them; it doubles. */
  readonly firstPauseMs: number;
  /** Nothing arrives for so long: the connection counts as broken. */
  readonly silenceMs: number;
  /** A hub that asks to wait for longer is left alone. */
  readonly longestWaitMs: number;
}

export const PATIENCE: Patience = { attempts: 5, firstPauseMs: 500, silenceMs: 60_000, longestWaitMs: 300_000 };

/** Requests to one hub about one model. */
export interface HubRequests {
  readonly settings: HubSettings;
  readonly patience: Patience;
  /**
   * `fetch` with the token for the hub's own origin, repeated when the connection fails or the hub is busy. Answers OK, or
   * 416 to a request with a Range. Throws CommandError 'hub-unreachable', 'hub-busy', 'hub-denied', 'hub-gated',
   * 'hub-not-found' or 'hub-answer', or the reason of a signal.
   */
  readonly fetch: typeof fetch;
}

/** HF_ENDPOINT, HF_TOKEN (or the token that `hf auth login` keeps in HF_HOME), HF_HUB_CACHE and HF_HOME. Throws CommandError 'hub-endpoint'. */
export async function hubSettings(): Promise<HubSettings> {
  const { HF_ENDPOINT, HF_TOKEN, HF_HOME, XDG_CACHE_HOME } = process.env;
  const endpoint = (HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new CommandError('hub-endpoint', `HF_ENDPOINT is "${HF_ENDPOINT}"; it must be an http or https address.`);
  }
  const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  return { endpoint, token: HF_TOKEN?.trim() || (await keptToken(join(home, 'token'))), cache: getHFHubCachePath() };
}

async function keptToken(file: string): Promise<string | null> {
  try {
    return (await readFile(file, 'utf8')).trim() || null;
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null;
    throw new CommandError('unreadable', `${file} cannot be read. Set HF_TOKEN, or make it readable.`, { cause });
  }
}

/** The pause after this many failures in a row (1 for the first). */
export const pauseAfter = (failures: number, { firstPauseMs }: Patience): number => firstPauseMs * 2 ** (failures - 1);

const isBusy = (status: number): boolean => status === 408 || status === 429 || (status >= 500 && status !== 501);

/** Requests about `model`; they end when `signal` is aborted. */
export function hubRequests(
  model: HubModel,
  settings: HubSettings,
  signal: AbortSignal,
  note: (text: string) => void,
  patience: Patience = PATIENCE,
): HubRequests {
  const once = async (url: URL, init: RequestInit): Promise<Response> => {
    const headers = new Headers(init.headers);
    // Only the hub itself learns the token: not the stores it redirects to (fetch drops it there), nor links to elsewhere.
    if (settings.token !== null && url.origin === new URL(settings.endpoint).origin)
      headers.set('authorization', `Bearer ${settings.token}`);
    const silence = new AbortController();
    const timer = setTimeout(() => silence.abort(new Error('no answer in time')), patience.silenceMs);
    try {
      const signals = [signal, silence.signal, ...(init.signal ? [init.signal] : [])];
      return await fetch(url, { ...init, headers, signal: AbortSignal.any(signals) });
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    settings,
    patience,
    async fetch(input, init = {}) {
      const url = new URL(input instanceof Request ? input.url : input);
      for (let failures = 1; ; failures += 1) {
        let trouble: { what: string; waitMs: number; cause?: unknown };
        try {
          const response = await once(url, init);
          if (response.ok || (response.status === 416 && new Headers(init.headers).has('range'))) return response;
          if (!isBusy(response.status)) throw await refusal(response, model, settings);
          await response.body?.cancel();
          const asked = retryAfterMs(response.headers.get('retry-after'));
          const waitMs = asked ?? pauseAfter(failures, patience);
          trouble = { what: `answers ${response.status} (${busyMeaning(response.status)})`, waitMs };
        } catch (cause) {
          signal.throwIfAborted();
          init.signal?.throwIfAborted();
          if (cause instanceof CommandError) throw cause;
          trouble = { what: `cannot be reached (${reason(cause)})`, waitMs: pauseAfter(failures, patience), cause };
        }
        if (failures >= patience.attempts || trouble.waitMs > patience.longestWaitMs) throw gaveUp(url, trouble);
        note(`${url.host} ${trouble.what}; trying again in ${formatMs(trouble.waitMs)}`);
        await pause(trouble.waitMs, undefined, { signal }).catch(() => signal.throwIfAborted());
      }
    },
  };
}

const busyMeaning = (status: number): string => (status === 429 ? 'too many requests' : 'it is in trouble');

/** Seconds or a date, as RFC 9110 §10.2.3 has it; null when absent or neither. */
function retryAfterMs(header: string | null): number | null {
  if (header === null || header.trim() === '') return null;
  const ms = Number.isFinite(Number(header)) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(ms, 0);
}

/** The innermost cause that says something: fetch wraps what happened in "fetch failed". */
export function reason(error: unknown): string {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  return systemCode(current) ?? (current instanceof Error ? current.message : String(current));
}

function gaveUp(url: URL, { what, waitMs, cause }: { what: string; waitMs: number; cause?: unknown }): CommandError {
  if (cause === undefined) {
    const when = waitMs > 0 ? ` in ${formatMs(waitMs)}` : '';
    return new CommandError(
      'hub-busy',
      `${url.origin} ${what}. Run the same command again${when}; what has arrived is kept.`,
    );
  }
  return new CommandError(
    'hub-unreachable',
    `${url.origin} ${what}. Check the connection, and HF_ENDPOINT if you use a mirror; then run the same command again: what has arrived is kept.`,
    { cause },
  );
}

/** What a hub's refusal means for the model asked for. The hub tells missing from forbidden in X-Error-Code. */
async function refusal(response: Response, { repo, revision }: HubModel, hub: HubSettings): Promise<CommandError> {
  const code = response.headers.get('x-error-code');
  const said = (await response.text()).slice(0, 200);
  const cause = new Error(`${response.url} answered ${response.status}${said ? `: ${said}` : ''}`);
  const page = `${hub.endpoint}/${repo}`;
  if (code === 'GatedRepo' || (response.status === 403 && code === null)) {
    const how =
      hub.token === null ? 'set HF_TOKEN to a token of that account' : 'use a token (HF_TOKEN) that may read it';
    return new CommandError('hub-gated', `${repo} is gated: accept its licence at ${page}, and ${how}.`, { cause });
  }
  if (response.status === 401 || response.status === 403) {
    const what =
      hub.token === null
        ? `${repo} does not exist or may not be read without signing in. Check the name at ${page}; if the model is private or gated, ask for access there and set HF_TOKEN.`
        : `The token (HF_TOKEN) is not accepted for ${repo}, or the model does not exist. Check both at ${page}.`;
    return new CommandError('hub-denied', what, { cause });
  }
  if (response.status === 404) {
    const what =
      code === 'RevisionNotFound'
        ? `${repo} has no revision "${revision}". Look at its branches and tags at ${page}/tree/main.`
        : code === 'EntryNotFound'
          ? `${repo} lists a file at "${revision}" that is not there. Pull it again.`
          : `There is no model ${repo} (revision "${revision}") at ${hub.endpoint}. Check the name and the revision.`;
    return new CommandError('hub-not-found', what, { cause });
  }
  return new CommandError('hub-answer', `${hub.endpoint} refuses ${repo} with status ${response.status}.`, { cause });
}
