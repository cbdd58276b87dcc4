// The command line: one file a command under commands/, each with a `register…` function called here.
import { Command } from 'commander';

/** Every command registers itself on the program. */
export type Register = (program: Command) => void;

/** The `weft` program with these commands. */
export function createProgram(registers: readonly Register[], version: string): Command {
  const program = new Command('weft')
    .description('Federated LoRA fine-tuning of language models in browser tabs.')
    .version(version)
    .showHelpAfterError('(see --help)')
    .exitOverride();
  for (const register of registers) register(program);
  return program;
}

/** Runs the program; returns the exit code: 2 for a wrong invocation, else what the command set. */
export async function run(program: Command, argv: readonly string[]): Promise<number> {
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof Error && 'exitCode' in error && 'code' in error) {
      // Commander has already printed its message; only help and version are not mistakes.
      return error.exitCode === 0 ? 0 : 2;
    }
    if (error instanceof Error && error.name === 'UsageError') {
      process.stderr.write(`weft: ${error.message}\n`);
      return 2;
    }
    throw error;
  }
}
