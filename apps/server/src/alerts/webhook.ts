// Alerts to the operator's receiver, by POST: one at a time, in order, tried again with longer and longer waits. Nothing
// waits for it: the queue is bounded, and what does not fit is counted and logged.
import type { Logger } from 'pino';
import { messageOf, ServerError } from '../errors.ts';
import type { AlertNews } from './center.ts';

const MOST_WAITING = 100;

export interface WebhookTimes {
  /** A receiver that has not answered by then is tried again. */
  readonly timeoutMs: number;
  readonly firstRetryMs: number;
  readonly longestRetryMs: number;
  /** An alert is given up after so many tries: about an hour with the defaults. */
  readonly tries: number;
}

const TIMES: WebhookTimes = { timeoutMs: 10_000, firstRetryMs: 1_000, longestRetryMs: 300_000, tries: 20 };

export class Webhook {
  readonly #url: URL;
  readonly #logger: Logger;
  readonly #times: WebhookTimes;
  readonly #waiting: AlertNews[] = [];
  readonly #closing = new AbortController();
  #sending: Promise<void> | null = null;
  #delivered = 0;
  #lost = 0;

  /** Throws ServerError 'bad-webhook'. The URL is often a secret and is never logged, only its host. */
  constructor(url: string, logger: Logger, times: Partial<WebhookTimes> = {}) {
    const parsed = URL.canParse(url) ? new URL(url) : null;
    if (!parsed || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) {
      throw new ServerError('bad-webhook', 'The alert webhook is no http:// or https:// URL. Correct --alert-webhook.');
    }
    this.#url = parsed;
    this.#logger = logger.child({ webhook: parsed.host });
    this.#times = { ...TIMES, ...times };
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get delivered(): number {
    return this.#delivered;
  }

  /** Alerts that were given up. */
  get lost(): number {
    return this.#lost;
  }

  send(news: AlertNews): void {
    if (this.#closing.signal.aborted) return;
    if (this.#waiting.length >= MOST_WAITING) {
      // The newest says most about now; the one being sent stays.
      const [dropped] = this.#waiting.splice(1, 1);
      this.#lost += 1;
      this.#logger.warn({ kind: dropped?.kind }, 'an alert was dropped: too many wait for the webhook');
    }
    this.#waiting.push(news);
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
    });
  }

  async #sendAll(): Promise<void> {
    for (let news = this.#waiting[0]; news && !this.#closing.signal.aborted; news = this.#waiting[0]) {
      if (await this.#deliver(news)) this.#delivered += 1;
      else if (!this.#closing.signal.aborted) this.#lost += 1;
      this.#waiting.shift();
    }
  }

  async #deliver(news: AlertNews): Promise<boolean> {
    const { firstRetryMs, longestRetryMs, tries } = this.#times;
    for (let attempt = 1; attempt <= tries && !this.#closing.signal.aborted; attempt++) {
      const problem = await this.#post(news);
      if (problem === null) return true;
      if (this.#closing.signal.aborted) return false;
      if (attempt === 1) this.#logger.warn({ kind: news.kind, problem }, 'the alert webhook did not take an alert');
      if (attempt < tries) await this.#pause(Math.min(longestRetryMs, firstRetryMs * 2 ** (attempt - 1)));
    }
    this.#logger.error({ kind: news.kind, run: news.run }, 'an alert was given up: the webhook did not take it');
    return false;
  }

  /** What was wrong; null when it was taken. */
  async #post(news: AlertNews): Promise<string | null> {
    try {
      const reply = await fetch(this.#url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(news),
        redirect: 'error',
        signal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#times.timeoutMs)]),
      });
      // Its words are of no interest, and may have no end.
      await reply.body?.cancel();
      return reply.ok ? null : `status ${reply.status}`;
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      return messageOf(cause).replaceAll(this.#url.href, this.#url.host);
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const { signal } = this.#closing;
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener('abort', end, { once: true });
    });
  }

  /** Ends at once; what waits is lost, and told again by the next start if it still stands. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#sending;
  }
}
