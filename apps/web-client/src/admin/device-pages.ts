// Rows of a run with more devices than its snapshots carry: the server filters, sorts and pages. Asked again when the wish
// changes, and with the snapshots, though not with each of them.
import { type Signal, useSignal } from '@preact/signals';
import type { ClientCounts, ClientPage, ClientQuery, ClientState } from '@weft/protocol';
import { useEffect, useRef } from 'preact/hooks';
import { count, quantity } from '../shared/format.ts';
import { clientsPage } from './store.ts';

export const PAGE_ROWS = 100;

/** Typing asks once it rests. */
const REST_MS = 250;
const REFRESH_MS = 2_000;

export const totalOf = (counts: ClientCounts): number =>
  Object.values(counts).reduce((sum, devices) => sum + devices, 0);

/** States somebody is in, the largest first. */
export const statesIn = (counts: ClientCounts): [ClientState, number][] =>
  (Object.entries(counts) as [ClientState, number][])
    .filter(([, devices]) => devices > 0)
    .sort(([, a], [, b]) => b - a);

/** `Rows 101 to 200 of 9,812 devices`, `Rows 1 to 37 of 37 that match, of 9,812 devices` */
export function rowsInWords(offset: number, shown: number, matching: number, all: number): string {
  if (shown === 0) return `None of ${quantity(all, 'device')}`;
  const rows = `Rows ${count(offset + 1)} to ${count(offset + shown)} of`;
  return matching === all
    ? `${rows} ${quantity(all, 'device')}`
    : `${rows} ${count(matching)} that match, of ${quantity(all, 'device')}`;
}

/** The page asked for; null until the server has answered, and while `wish` is null. `tick` changes with every snapshot. */
export function useClientPage(wish: ClientQuery | null, tick: number): Signal<ClientPage | null> {
  const page = useSignal<ClientPage | null>(null);
  const asked = useRef({ number: 0, at: 0 });
  const key = wish === null ? null : JSON.stringify(wish);
  const latest = useRef(wish);
  latest.current = wish;

  const fetchPage = async () => {
    const { current } = latest;
    if (current === null) return;
    asked.current = { number: asked.current.number + 1, at: performance.now() };
    const { number } = asked.current;
    const reply = await clientsPage(current);
    // Answers may overtake each other; only the latest question's is shown.
    if (reply && number === asked.current.number) page.value = reply;
  };

  useEffect(() => {
    if (key === null) {
      page.value = null;
      return;
    }
    const timer = setTimeout(() => void fetchPage(), page.value === null ? 0 : REST_MS);
    return () => clearTimeout(timer);
  }, [key]);
  useEffect(() => {
    if (key !== null && tick - asked.current.at >= REFRESH_MS) void fetchPage();
  }, [tick]);
  return page;
}
