// Passwords for a command: asked for on a terminal, else one a line of standard input. Never an argument, which other
// users of the machine could read.
import { createInterface } from 'node:readline';
import password from '@inquirer/password';
import { CommandError, UsageError } from '../command.ts';

export interface Passwords {
  /** The next password. `confirm` asks for it twice on a terminal. Throws UsageError where there is none. */
  next(label: string, options?: { confirm?: boolean }): Promise<string>;
}

async function ask(label: string, signal: AbortSignal): Promise<string> {
  try {
    // On stderr, so that the document on stdout stays alone.
    return await password({ message: label, mask: true }, { output: process.stderr, signal });
  } catch (cause) {
    throw new CommandError('interrupted', 'No password was given.', { cause });
  }
}

export function openPasswords(signal: AbortSignal): Passwords {
  let lines: AsyncIterator<string> | null = null;
  return {
    async next(label, { confirm = false } = {}) {
      if (process.stdin.isTTY) {
        const first = await ask(label, signal);
        if (confirm && (await ask(`${label} again`, signal)) !== first) {
          throw new CommandError('password-differs', 'The two passwords differ. Nothing was changed; try again.');
        }
        return first;
      }
      lines ??= createInterface({ input: process.stdin, terminal: false })[Symbol.asyncIterator]();
      const line = await lines.next();
      if (line.done) {
        throw new UsageError(
          `${label}: none was given. Type it on a terminal, or write it as a line to standard input.`,
        );
      }
      return line.value;
    },
  };
}
