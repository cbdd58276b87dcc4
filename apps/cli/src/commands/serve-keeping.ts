// What `weft serve` is told of where it keeps its index and whom it calls when something is wrong. Secrets in URLs may come
// by the environment, for a command line is seen by every user of the machine.
import { createLogger, type ServerOptions } from '@weft/server';
import type { Command } from 'commander';
import { numberOption } from '../command.ts';

export interface KeepingOptions {
  readonly database?: string;
  readonly alertWebhook?: string;
  readonly alertAfter: number;
  readonly alertFree: number;
}

/** The options, and what they mean. */
export const keepingOptions = (command: Command): Command =>
  command
    .option(
      '--database <url>',
      'PostgreSQL for the history index, postgresql://USER:PASSWORD@HOST:PORT/DATABASE; else DATABASE_URL, else PGlite in --data-dir',
    )
    .option('--alert-webhook <url>', 'POST alerts there as JSON; else WEFT_ALERT_WEBHOOK')
    .option(
      '--alert-after <minutes>',
      'a run that does not move for so long has stalled',
      numberOption('--alert-after', { minimum: 0.1 }),
      30,
    )
    .option(
      '--alert-free <gigabytes>',
      'less free disk space than this is an alert',
      numberOption('--alert-free', { minimum: 0 }),
      5,
    );

/** Throws ServerError 'bad-log-level'. */
export function keepingOf(given: KeepingOptions): Partial<ServerOptions> {
  const { DATABASE_URL, WEFT_ALERT_WEBHOOK, WEFT_LOG_LEVEL } = process.env;
  const databaseUrl = given.database || DATABASE_URL;
  const alertWebhook = given.alertWebhook || WEFT_ALERT_WEBHOOK;
  return {
    logger: createLogger(WEFT_LOG_LEVEL ? { level: WEFT_LOG_LEVEL } : {}),
    alertStallMs: given.alertAfter * 60_000,
    alertFreeBytes: given.alertFree * 1e9,
    ...(databaseUrl ? { databaseUrl } : {}),
    ...(alertWebhook ? { alertWebhook } : {}),
  };
}
