// The alerts of one server, put together: what is wrong, who looks, where it is told.
import type { Logger } from 'pino';
import { AlertCenter } from './center.ts';
import { AlertWatch, type WatchOptions } from './watch.ts';
import { Webhook } from './webhook.ts';

const STALL_MS = 30 * 60_000;
const FREE_BYTES = 5e9;
const LOOK_EVERY_MS = 2_000;

export interface AlertOptions {
  /** Where alerts are POSTed to, http:// or https://. */
  readonly alertWebhook?: string;
  /** A run without a new phase or commit, and without a deadline that comes nearer, for so long has stalled. Default 30 minutes. */
  readonly alertStallMs?: number;
  /** Free bytes under which the disk is said to be filling; more than what uploads are refused at. Default 5 GB. */
  readonly alertFreeBytes?: number;
  /** How often runs, disk and index are looked at. */
  readonly alertEveryMs?: number;
}

export interface Alerts {
  readonly center: AlertCenter;
  readonly watch: AlertWatch;
  readonly webhook: Webhook | null;
  close(): Promise<void>;
}

/** Throws ServerError 'bad-webhook'. Nothing is looked at before `watch.start()`. */
export function openAlerts(
  options: AlertOptions,
  seen: Pick<WatchOptions, 'runs' | 'indexProblem' | 'dataDir' | 'monotonic'>,
  logger: Logger,
): Alerts {
  const center = new AlertCenter(() => new Date());
  const webhook = options.alertWebhook ? new Webhook(options.alertWebhook, logger) : null;
  center.onNews((news) => {
    const { kind, run, state, text } = news;
    const about = { kind, ...(run === null ? {} : { run }) };
    logger[state === 'raised' ? 'warn' : 'info'](about, `alert ${state}: ${text}`);
    webhook?.send(news);
  });
  const watch = new AlertWatch(center, {
    ...seen,
    stallMs: options.alertStallMs ?? STALL_MS,
    freeBytes: options.alertFreeBytes ?? FREE_BYTES,
    everyMs: options.alertEveryMs ?? LOOK_EVERY_MS,
    logger,
  });
  return {
    center,
    watch,
    webhook,
    async close() {
      watch.stop();
      await webhook?.close();
    },
  };
}
