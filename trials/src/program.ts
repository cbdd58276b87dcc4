// A command line of trials: one subcommand each, all with --json and --out. Exit codes: 0 reached, 1 missed or failed, 2 bad usage.
import { Command, type CommanderError, InvalidArgumentError } from 'commander';
import { passed, type Trial, tableOf, writeResult } from './figure.ts';

export interface TrialOption {
  /** Commander's flags, such as `--volunteers <n>`. */
  readonly flags: string;
  readonly help: string;
  readonly fallback: number;
}

export class TrialProgram {
  readonly #program: Command;

  constructor(name: string, description: string) {
    this.#program = new Command(name).description(description).exitOverride().showHelpAfterError();
  }

  /** Adds a subcommand; every option is a non-negative number. */
  trial(
    name: string,
    description: string,
    options: readonly TrialOption[],
    run: Trial<Readonly<Record<string, number>>>,
  ): this {
    const command = this.#program
      .command(name)
      .description(description)
      .option('--json', 'one JSON document on stdout, progress on stderr')
      .option('--out <dir>', 'write <trial>.json into this folder');
    for (const { flags, help, fallback } of options) command.option(flags, help, numberOf(flags), fallback);
    command.action(async (given: Record<string, unknown> & { json?: boolean; out?: string }) => {
      const say = (line: string) => process.stderr.write(`${line}\n`);
      const numbers = Object.fromEntries(
        Object.entries(given).filter((entry): entry is [string, number] => typeof entry[1] === 'number'),
      );
      const result = await run(numbers, say);
      process.stdout.write(given.json ? `${JSON.stringify(result)}\n` : `${tableOf(result)}\n`);
      if (given.out) say(`Written to ${writeResult(given.out, result)}`);
      process.exitCode = passed(result) ? 0 : 1;
    });
    return this;
  }

  /** Adds a subcommand that measures nothing. */
  task(
    name: string,
    description: string,
    flags: string,
    help: string,
    fallback: string,
    run: (value: string) => string,
  ): this {
    this.#program
      .command(name)
      .description(description)
      .option(flags, help, fallback)
      .action((options: Record<string, string>) => {
        const [value = fallback] = Object.values(options);
        process.stdout.write(`${run(value)}\n`);
      });
    return this;
  }

  async run(argv: readonly string[]): Promise<void> {
    try {
      await this.#program.parseAsync(argv, { from: 'user' });
    } catch (error) {
      if (!isCommanderError(error)) throw error;
      process.exitCode = error.exitCode === 0 ? 0 : 2;
    }
  }
}

const isCommanderError = (error: unknown): error is CommanderError =>
  error instanceof Error && 'exitCode' in error && 'code' in error && String(error.code).startsWith('commander.');

const numberOf =
  (flags: string) =>
  (text: string): number => {
    const value = Number(text);
    if (Number.isFinite(value) && value >= 0) return value;
    throw new InvalidArgumentError(`${flags} takes a number of at least 0.`);
  };
