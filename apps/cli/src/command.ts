// How every command of `weft` talks: one JSON document or a table on stdout, progress on stderr, exit code 0, 1 or 2.
import type { Command } from 'commander';

/** A wrong invocation: exit code 2. `message` says what to write instead. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'usage';
}

/** A failure of the work itself: exit code 1. `message` says what happened and what to do. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** Signals closer together than this are one. */
const SAME_SIGNAL_MS = 500;

/** A command's way to the outside. */
export interface Io {
  readonly json: boolean;
  /** Aborted by Ctrl-C or SIGTERM; a second signal ends the process at once. */
  readonly signal: AbortSignal;
  /** A line of progress on stderr. */
  note(text: string): void;
  /** A line of progress that replaces the last one on a terminal, and is left out elsewhere. */
  status(text: string): void;
  /** The outcome: `document` as JSON under --json, else the text. Called once. */
  result(document: unknown, text: () => string): void;
}

const errorCode = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'internal';

/** Every cause of an error, outermost first, as one paragraph. */
function explain(error: unknown): string {
  const lines: string[] = [];
  for (let current = error; current !== undefined && lines.length < 5; ) {
    const message = current instanceof Error ? current.message : String(current);
    if (!lines.includes(message)) lines.push(message);
    current = current instanceof Error ? current.cause : undefined;
  }
  return lines.join('\n  because: ');
}

function createIo(json: boolean, signal: AbortSignal): Io {
  const terminal = process.stderr.isTTY === true;
  let open = false;
  const clear = () => {
    if (open) process.stderr.write('\r\x1b[2K');
    open = false;
  };
  return {
    json,
    signal,
    note(text) {
      clear();
      process.stderr.write(`${text}\n`);
    },
    status(text) {
      if (!terminal) return;
      process.stderr.write(`\r\x1b[2K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`);
      open = true;
    },
    result(document, text) {
      clear();
      process.stdout.write(json ? `${JSON.stringify(document, null, 2)}\n` : `${text()}\n`);
    },
  };
}

/** `serve`, or `admin list`. */
const fullName = (command: Command): string =>
  command.parent?.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();

/**
 * Gives `command` its --json flag and its work. Errors become one paragraph on stderr and exit code 1, wrong usage exit
 * code 2; under --json the error is also the document on stdout.
 */
export function action<Options extends object>(
  command: Command,
  work: (options: Options, args: string[], io: Io) => Promise<void>,
): Command {
  return command
    .option('--json', 'print one JSON document on stdout; progress stays on stderr')
    .action(async (...parameters: unknown[]) => {
      const options = command.opts<Options & { json?: boolean }>();
      const args = parameters.slice(0, -2).flat().map(String);
      const abort = new AbortController();
      let askedAt = 0;
      const onSignal = () => {
        // One Ctrl-C may arrive twice: from the terminal and passed on by a parent process.
        if (abort.signal.aborted && performance.now() - askedAt < SAME_SIGNAL_MS) return;
        if (abort.signal.aborted) process.exit(130);
        askedAt = performance.now();
        abort.abort(new CommandError('interrupted', 'Interrupted.'));
      };
      process.on('SIGINT', onSignal);
      process.on('SIGTERM', onSignal);
      const io = createIo(options.json === true, abort.signal);
      try {
        await work(options, args, io);
      } catch (error) {
        const usage = error instanceof UsageError;
        io.note(`weft ${fullName(command)}: ${explain(error)}`);
        if (usage) io.note(`See: weft ${fullName(command)} --help`);
        if (errorCode(error) === 'internal' && error instanceof Error && error.stack) io.note(error.stack);
        if (io.json) io.result({ error: { code: errorCode(error), message: explain(error) } }, () => '');
        process.exitCode = usage ? 2 : 1;
      } finally {
        process.off('SIGINT', onSignal);
        process.off('SIGTERM', onSignal);
      }
    });
}

/** Parses an option's value as a number of at least `minimum`, or throws a {@link UsageError} that names the option. */
export function numberOption(
  name: string,
  options: { minimum?: number; integer?: boolean } = {},
): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isFinite(value)) throw new UsageError(`${name} takes a number, not "${text}".`);
    if (options.integer && !Number.isInteger(value)) throw new UsageError(`${name} takes a whole number, not ${text}.`);
    if (options.minimum !== undefined && value < options.minimum) {
      throw new UsageError(`${name} must be at least ${options.minimum}, not ${text}.`);
    }
    return value;
  };
}

/** Rows of text in aligned columns; numbers to the right. The first row is the heading. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map((row) => row.map(String));
  const columns = Math.max(...cells.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const numeric = widths.map((_, i) => rows.slice(1).every((row) => /^[-\d.,]+( \w+)?$/.test(String(row[i] ?? '0'))));
  const line = (row: string[]) =>
    row
      .map((cell, i) => (numeric[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  const [heading = [], ...body] = cells;
  return [line(heading), widths.map((width) => '─'.repeat(width)).join('  '), ...body.map(line)].join('\n');
}

/** Bytes in the units people read: 4.9 MB (MB = 10⁶ bytes). */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), units.length);
  const value = bytes / 1000 ** power;
  return `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[power - 1]}`;
}

/** Milliseconds as people say them: 850 ms, 12.3 s, 1 min 20 s. */
export function formatMs(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
