// The page's end of the worker: its snapshots as a signal, its calls, and what only a page can know: hidden, leaving,
// battery. Nothing is trained, fetched or counted here.
import { computed, signal } from '@preact/signals';
import type { OwnLimits } from '@weft/protocol';
import { type Remote, transfer, wrap } from 'comlink';
import type { Fault, TabState, WorkerApi } from '../worker/api.ts';
import { NO_LIMITS } from './words.ts';

const LIMITS_KEY = 'weft-limits';

export const tab = signal<TabState | null>(null);
/** What kept GPU, storage or key from opening. */
export const openingFault = signal<Fault | null>(null);
/** Why this page paused by itself; null when it did not. */
export const selfPaused = signal<string | null>(null);
/** From Start to its end, whatever the stage, as the worker knows it. */
export const helping = computed(() => openingFault.value === null && (tab.value?.helping ?? false));
export const limits = signal<OwnLimits>(keptLimits());

let worker: Remote<WorkerApi> | null = null;

export function api(): Remote<WorkerApi> {
  if (!worker) throw new Error('The worker is not started yet.');
  return worker;
}

type Wish = (remote: Remote<WorkerApi>) => Promise<unknown>;

/** Sends a wish to the worker; a broken worker shows as its fault. */
export function ask(wish: Wish): void {
  void untilTaken(wish);
}

/** As {@link ask}; resolves when the worker has taken it. */
async function untilTaken(wish: Wish): Promise<void> {
  await wish(api()).catch((error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    openingFault.value = {
      code: 'worker',
      message: `The part of this page that trains failed: ${message}`,
      retrying: false,
    };
  });
}

function keptLimits(): OwnLimits {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(LIMITS_KEY) ?? 'null');
    if (kept === null || typeof kept !== 'object') return NO_LIMITS;
    const read = (key: string): number | null => {
      const value: unknown = (kept as Record<string, unknown>)[key];
      return typeof value === 'number' && value > 0 ? value : null;
    };
    return { maxMemoryBytes: read('maxMemoryBytes'), maxRank: read('maxRank'), maxUploadBytes: read('maxUploadBytes') };
  } catch {
    // Storage is switched off, or something else wrote there: no limits, as for a first visit.
    return NO_LIMITS;
  }
}

/** Resolves when the worker has taken them. */
export function setLimits(next: OwnLimits): Promise<void> {
  limits.value = next;
  try {
    localStorage.setItem(LIMITS_KEY, JSON.stringify(next));
  } catch {
    // Storage is switched off: the limits hold for this visit.
  }
  return untilTaken((remote) => remote.setLimits(next));
}

/** Removes what this page keeps by itself. */
export function forgetLimits(): void {
  limits.value = NO_LIMITS;
  try {
    localStorage.removeItem(LIMITS_KEY);
  } catch {
    // Storage is switched off: nothing was kept.
  }
}

/** The invite of the address, which leaves the address bar: a copied address or a screenshot must not give it away. */
function takeInvite(): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const invite = fragment.get('invite');
  if (invite === null) return null;
  history.replaceState(history.state, '', location.pathname + location.search);
  return invite.slice(0, 1_000);
}

/** Starts the worker and everything that is told to it. Once a page. */
export function connect(): void {
  const thread = new Worker(new URL('../worker/main.ts', import.meta.url), { type: 'module', name: 'weft' });
  thread.addEventListener('error', (event) => {
    openingFault.value = {
      code: 'worker',
      message: `The part of this page that trains could not start: ${event.message || 'it was not loaded'}. Reload the page.`,
      retrying: false,
    };
  });
  const channel = new MessageChannel();
  channel.port1.onmessage = ({ data }: MessageEvent<TabState | { opening: Fault }>) => {
    if ('opening' in data) {
      openingFault.value = data.opening;
      return;
    }
    openingFault.value = null;
    tab.value = data;
    if (!data.helping) selfPaused.value = null;
  };
  worker = wrap<WorkerApi>(thread);
  const asked = new URL(location.href).searchParams;
  const tuning = asked.get('tuning') !== 'off';
  const options = {
    runId: asked.get('run'),
    invite: takeInvite(),
    limits: limits.value,
    hidden: document.hidden,
    tuning,
  };
  ask((remote) => remote.open(transfer(channel.port2, [channel.port2]), options));
  document.addEventListener('visibilitychange', () => ask((remote) => remote.setHidden(document.hidden)));
  addEventListener('pagehide', () => ask((remote) => remote.leave()));
  addEventListener('pageshow', (event) => {
    // Back from the browser's page cache: the place was given up, so ask for another.
    if (event.persisted && helping.value) ask((remote) => remote.retry());
  });
  void watchBattery();
}

interface Battery extends EventTarget {
  readonly level: number;
  readonly charging: boolean;
}

const LOW_BATTERY = 0.2;

/** Pauses on a low battery until it charges or the volunteer resumes. Only some browsers tell. */
async function watchBattery(): Promise<void> {
  const { getBattery } = navigator as Navigator & { getBattery?: () => Promise<Battery> };
  // Refused by permission policy, or absent: then nothing is known of a battery.
  const battery = await getBattery?.call(navigator).catch(() => undefined);
  if (!battery) return;
  let overruled = false;
  const look = () => {
    const low = !battery.charging && battery.level < LOW_BATTERY;
    if (!low) overruled = false;
    if (low && helping.value && !tab.value?.paused && !overruled) {
      overruled = true;
      selfPaused.value = `Paused by itself: the battery is at ${Math.round(battery.level * 100)} %. It goes on when the battery charges, or when you press Resume.`;
      ask((remote) => remote.pause());
    } else if (!low && selfPaused.value !== null) {
      selfPaused.value = null;
      ask((remote) => remote.resume());
    }
  };
  battery.addEventListener('levelchange', look);
  battery.addEventListener('chargingchange', look);
  helping.subscribe(look);
}
