// The server's log: pino, one JSON document a line. Who wrote a line is in its fields (run, round, client, reqId), never
// only in its words; what authorises is struck out should it ever get into an object that is logged.
import { type DestinationStream, type LevelWithSilent, type Logger, pino } from 'pino';
import { ServerError } from './errors.ts';

export const LOG_LEVELS = [
  'trace',
  'debug',
  'info',
  'warn',
  'error',
  'fatal',
  'silent',
] as const satisfies LevelWithSilent[];

const SECRETS = [
  'token',
  'operatorToken',
  'adminToken',
  'password',
  'invite',
  'secret',
  'signature',
  'challenge',
  'publicKey',
  'privateKey',
  'authorization',
  'cookie',
];
/** At the first three levels of what is logged; pino looks no deeper than its paths. */
const redact = SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]);

/** Throws ServerError 'bad-log-level'. */
export function createLogger(
  options: { readonly level?: string; readonly destination?: DestinationStream } = {},
): Logger {
  const level = LOG_LEVELS.find((name) => name === (options.level || 'info'));
  if (!level) {
    throw new ServerError(
      'bad-log-level',
      `"${options.level}" is no log level. Set WEFT_LOG_LEVEL to one of ${LOG_LEVELS.join(', ')}.`,
    );
  }
  return pino({ level, redact: { paths: redact, censor: '[struck out]' } }, options.destination ?? pino.destination(2));
}
