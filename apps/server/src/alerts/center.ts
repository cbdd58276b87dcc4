// What is wrong now, told once when it begins and once when it ends. Knows no rule and no network: rules are in rules.ts,
// watch.ts and runs/alerts.ts, the way out is webhook.ts.
import type { Alert, AlertKind } from '@weft/protocol';

/** What receivers are sent: an alert, and whether it begins or has ended. */
export interface AlertNews extends Alert {
  readonly state: 'raised' | 'resolved';
}

export class AlertCenter {
  readonly #now: () => Date;
  readonly #active = new Map<string, Alert>();
  readonly #listeners = new Set<(news: AlertNews) => void>();

  constructor(now: () => Date) {
    this.#now = now;
  }

  /** Calls `listener` when an alert begins or ends. It must not throw. */
  onNews(listener: (news: AlertNews) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * `text`: what is wrong and what to do; null when it no longer is. An alert that stands keeps its first time and takes the
   * newer words, without being told again. Returns whether it is news.
   */
  set(run: string | null, kind: AlertKind, text: string | null, detail: Alert['detail'] = {}): boolean {
    const key = `${kind} ${run ?? ''}`;
    const standing = this.#active.get(key);
    const at = this.#now().toISOString();
    if (text !== null) {
      const alert = { at: standing?.at ?? at, run, kind, text, detail };
      this.#active.set(key, alert);
      if (!standing) this.#tell({ ...alert, state: 'raised' });
      return !standing;
    }
    if (!standing) return false;
    this.#active.delete(key);
    this.#tell({ ...standing, at, state: 'resolved' });
    return true;
  }

  /** Oldest first. */
  active(): Alert[] {
    return [...this.#active.values()].sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  }

  #tell(news: AlertNews): void {
    for (const listener of this.#listeners) listener(news);
  }
}
