// Whether volunteers need to hear of a round again, and how soon. Time that passes is no news: they count for themselves.
import type { RoundView } from '@weft/protocol';

/** Ends of phases further apart than this are news, in milliseconds; closer is the way of timers. */
const SAME_END_MS = 1_500;

/** What is new about a round since volunteers were last told: nothing, mere counts, or what changes what they do. */
export class RoundNews {
  readonly #now: () => number;
  #told: { readonly view: RoundView; readonly endsAt: number | null } | null = null;

  constructor(now: () => number) {
    this.#now = now;
  }

  of(view: RoundView): 'urgent' | 'plain' | null {
    const endsAt = view.remainingMs === null ? null : this.#now() + view.remainingMs;
    const told = this.#told;
    const movedEnd =
      !told ||
      (endsAt === null) !== (told.endsAt === null) ||
      Math.abs((endsAt ?? 0) - (told.endsAt ?? 0)) > SAME_END_MS;
    const phase = !told || view.round !== told.view.round || view.phase !== told.view.phase;
    const counts =
      !told || JSON.stringify({ ...view, remainingMs: 0 }) !== JSON.stringify({ ...told.view, remainingMs: 0 });
    if (!phase && !movedEnd && !counts) return null;
    this.#told = { view, endsAt };
    return phase || movedEnd ? 'urgent' : 'plain';
  }
}
