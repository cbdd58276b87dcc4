// Rows of a run with more devices than its snapshots carry: the server filters, sorts and pages. Asked again when the wish
// changes, and with the snapshots, though not with each of them.
import { type Signal, useSignal } from '@preact/signals';
import type { ClientPage, ClientQuery } from '@weft/protocol';
import { useEffect, useRef } from 'preact/hooks';
import { clientsPage } from './store.ts';

export const PAGE_ROWS = 100;

/** Typing asks once it rests. */
const REST_MS = 250;
const REFRESH_MS = 2_000;

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
