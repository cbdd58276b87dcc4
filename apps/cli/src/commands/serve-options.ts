// The options of `weft serve` that say who may reach it and how: addresses, limits, sessions, HTTPS.
import { LIMITS, type Limits, type ServerOptions } from '@weft/server';
import type { Command } from 'commander';
import { UsageError } from '../command.ts';
import { durationOption } from '../duration.ts';

export interface EdgeOptions {
  readonly publicUrl?: string;
  readonly allowOrigin?: readonly string[];
  readonly trustProxy?: readonly string[];
  readonly limit?: Partial<Limits>;
  readonly sessionIdle?: number;
  readonly sessionMax?: number;
  readonly https?: boolean;
  readonly httpsCert?: string;
  readonly httpsKey?: string;
}

const names = Object.keys(LIMITS) as (keyof Limits)[];

function limit(text: string, before: Partial<Limits> = {}): Partial<Limits> {
  const [name = '', value = '', ...rest] = text.split('=');
  const known = names.find((each) => each === name);
  if (!known || rest.length > 0 || !/^\d{1,15}$/.test(value) || Number(value) === 0) {
    throw new UsageError(
      `--limit takes NAME=N with a whole N above 0 and NAME one of ${names.join(', ')}; not "${text}".`,
    );
  }
  return { ...before, [known]: Number(value) };
}

const more = (text: string, before: readonly string[] = []): readonly string[] => [...before, text];
const list = (text: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  ...text
    .split(',')
    .map((each) => each.trim())
    .filter(Boolean),
];

export const edgeOptions = (command: Command): Command =>
  command
    .option(
      '--public-url <url>',
      'address of the server as browsers reach it through a proxy, such as https://weft.example.org',
    )
    .option('--allow-origin <origin>', 'another origin whose pages may talk to the server; may be repeated', more)
    .option(
      '--trust-proxy <addresses>',
      'proxies whose X-Forwarded-For is believed: addresses, networks, loopback; by commas',
      list,
    )
    .option(
      '--limit <name=n>',
      `raise or lower a limit: ${names.map((each) => `${each} (${LIMITS[each]})`).join(', ')}; may be repeated`,
      limit,
    )
    .option(
      '--session-idle <time>',
      'sign admins out after this long without use (default: 12h)',
      durationOption('--session-idle'),
    )
    .option(
      '--session-max <time>',
      'sign admins out after this long in any case (default: 7d)',
      durationOption('--session-max'),
    )
    .option('--https', 'serve HTTPS with a self-signed certificate, made once and kept in the data folder')
    .option(
      '--https-cert <file>',
      'serve HTTPS with this certificate (PEM, with its chain); read again when it changes, and on SIGHUP',
    )
    .option('--https-key <file>', 'private key of --https-cert (PEM)');

/** What the server is started with for them. Throws UsageError. */
export function edgesOf(options: EdgeOptions): Partial<ServerOptions> {
  const { publicUrl, allowOrigin, trustProxy, sessionIdle, sessionMax, https, httpsCert, httpsKey } = options;
  if ((httpsCert === undefined) !== (httpsKey === undefined)) {
    throw new UsageError('--https-cert and --https-key belong together; give both.');
  }
  const files = httpsCert !== undefined && httpsKey !== undefined ? { certFile: httpsCert, keyFile: httpsKey } : null;
  const own = https ? { https: true as const } : {};
  return {
    ...(publicUrl === undefined ? {} : { publicUrl }),
    ...(allowOrigin === undefined ? {} : { allowOrigins: allowOrigin }),
    ...(trustProxy === undefined ? {} : { trustProxy }),
    ...(options.limit === undefined ? {} : { limits: options.limit }),
    sessionTimes: {
      ...(sessionIdle === undefined ? {} : { idleMs: sessionIdle }),
      ...(sessionMax === undefined ? {} : { maximumMs: sessionMax }),
    },
    ...(files ? { https: files } : own),
  };
}
